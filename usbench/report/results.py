"""Finished evaluations as the store holds them: records with their per-image scores. What is half there is named."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd

from usbench.errors import UsbenchError
from usbench.runs.store import Store
from usbench.spec import key_of

SCORES = "scores.csv"
BEST = "best-on-test.csv"  # scores of the step that the test set itself likes best
BY_TEST = "-best-on-test"  # ends the key of a row that the test set chose
MOST_COLUMNS = 2000
NEEDED_OF_ROW: dict[str, type] = {
    "setting": str, "arena": str, "seed": int, "loss": str, "baseline": str, "shift": str, "test_data": str,
    "label_fraction": Real,
}  # fmt: skip
OF_IMAGES = ("seed", "labelled", "inner", "pretrained", "images", "hidden")  # of an identity: seeds and images
KEY = re.compile(r"[0-9a-z]+")


def read_scores(path: Path) -> pd.DataFrame:
    """A table of images as it was written: a name may be "NA", and the videos "1" and "01" are two."""
    return pd.read_csv(path, dtype={"name": str, "video": str}, keep_default_na=False, na_values=[""])


@dataclass(frozen=True)
class Result:
    """One finished evaluation: a row of one seed."""

    folder: Path
    row: dict[str, Any]
    facts: dict[str, Any]
    finetuned: str  # the key of the fine-tune that was tested: shared by its test sets
    versions: dict[str, str] = field(default_factory=dict)
    budget: tuple[int, ...] = ()  # what the pretraining was given: steps and images a batch
    recipe: str = ""  # a digest of how it was fine-tuned
    lineage: str = ""  # a digest of what its trainings are, but for seed, images and schedules; empty where they lack
    schedules: str = ""  # those
    revision: int = 0  # of the rules that it was scored by
    processors: tuple[str, ...] = ()  # that its trainings ran on, GPUs with them
    file: str = SCORES  # of its folder: the per-image scores

    @property
    def path(self) -> Path:
        """Where the per-image scores lie."""
        return self.folder / self.file

    @functools.cached_property
    def digest(self) -> str:
        """Of the per-image scores."""
        try:
            return hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise self._unreadable(error) from None

    @property
    def each(self) -> tuple[Result, ...]:
        """The evaluations that it is made of: itself."""
        return (self,)

    def scores(self) -> pd.DataFrame:
        """The per-image table."""
        try:
            with self.path.open("rb") as file:
                if file.readline().count(b",") > MOST_COLUMNS:
                    raise ValueError(f"it has more than {MOST_COLUMNS} columns")
            return read_scores(self.path)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> UsbenchError:
        return UsbenchError(f"{self.path} cannot be read ({error}): delete the folder, run again.")


def result_of(store: Store, folder: Path, record: dict[str, Any]) -> Result:
    """The evaluation that a record tells of; refuses one that lacks what a table needs."""
    try:
        row, facts, finetuned = dict(record["row"]), dict(record["facts"]), str(record["identity"]["finetuned"])
        lacking = [name for name, kind in NEEDED_OF_ROW.items() if not isinstance(row.get(name), kind)]
        lacking += [name for name, value in row.items() if isinstance(value, list | dict)]
        lacking += [name for name in ("metrics", "primary") if not _is_text(facts.get(name))]
        lacking += [] if KEY.fullmatch(finetuned) else ["finetuned"]
        revision = int(record["identity"].get("revision") or 0)
        versions = {str(k): str(v) for k, v in dict(record.get("versions", {})).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise UsbenchError(f"{folder / 'record.json'} lacks {error}: delete its folder and run again.") from None
    if lacking:
        raise UsbenchError(f"{folder / 'record.json'} has no sound '{lacking[0]}': delete its folder and run again.")
    return Result(folder, row, facts, finetuned, versions, **_trainings(store, finetuned, facts), revision=revision)


def _is_text(value: Any) -> bool:
    """Whether it is nothing, a text, or a list of texts."""
    return all(isinstance(part, str) for part in (value if isinstance(value, list) else [value or ""]))


def _trainings(store: Store, finetuned: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The pretraining's budget, the fine-tune's recipe, and what both trainings are.

    The budget is what was given. What was used may be a little less, as a batch holds whole clips.
    """
    try:
        records = [store.record(f"finetune-{finetuned}")]
        tuned, source = dict(records[0]["identity"]), {}
        if tuned["pretrained"]:
            records.append(store.record(f"pretrain-{tuned['pretrained']}"))
            source = dict(records[1]["identity"])
        schedules = [part.pop("schedule", None) for part in (tuned, source)]  # what fits frozen features has none
        budget = (int(schedules[1]["steps"]), int(schedules[1]["batch"])) if schedules[1] else ()
        for part in (tuned, source):
            for name in OF_IMAGES:
                part.pop(name, None)
        return {
            "budget": budget, "recipe": json.dumps(schedules[0], sort_keys=True),
            "lineage": key_of({"tuned": tuned, "source": source}), "schedules": key_of({"of": schedules}),
            "processors": tuple(dict.fromkeys(str(r["processor"]) for r in records if r.get("processor"))),
        }  # fmt: skip
    except (
        UsbenchError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
    ):  # the evaluation came here without its trainings
        return {"budget": tuple(int(n) if isinstance(n := facts.get(k), int) else 0 for k in ("steps", "images_seen"))}


def chosen_by_test(result: Result) -> Result | None:
    """The same training at the step that the test set itself likes best, as a row of its own; None where nobody knows.

    It stands in an arena of such rows: what a test set chose is compared with nothing else.
    """
    if not (result.folder / BEST).is_file():
        return None
    own = {name: f"{result.row[name]}{BY_TEST}" for name in ("setting", "arena")}
    facts = {k: v for k, v in result.facts.items() if not k.endswith(("_inner", "_inner_last"))}
    return replace(result, row={**result.row, **own}, facts={**facts, "selection": "best-on-test"}, file=BEST)


def results(store: Store, stage_ids: Iterable[str]) -> list[Result]:
    """The evaluations of these names."""
    return [result_of(store, store.folder(stage_id), store.record(stage_id)) for stage_id in stage_ids]


def evaluations(store: Store) -> Iterator[Path]:
    """The folder of every evaluation of a store, finished or broken, by name; none that is being worked on."""
    for folder in sorted(store.stages.glob("evaluate-*")):
        if folder.suffix != ".part" and folder.is_dir():
            yield folder


def whole(store: Store, folder: Path) -> Result | str:
    """The evaluation in a folder, or what it lacks."""
    if not (folder / "record.json").is_file():
        return f"{folder.name}, which is half-written (it has no record.json)"
    if not (folder / SCORES).is_file():
        return f"{folder.name}, which is half-written (it has no {SCORES})"
    try:
        return result_of(store, folder, store.record(folder.name))
    except UsbenchError as error:
        return f"{folder.name}, which is damaged ({str(error).rpartition(': ')[0] or str(error).rstrip('.')})"
