"""Which network a user means: a run, a row or a stage → one fine-tune with its tests. Needs no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usbench.errors import UsbenchError, listed
from usbench.report import kept
from usbench.report.cells import Cell, cells
from usbench.report.compare import find
from usbench.report.index import Index
from usbench.report.results import Result
from usbench.runs.records import WEIGHTS, is_stage
from usbench.runs.store import Store

KINDS = ("finetune", "evaluate", "pretrain")
LEAST = 4  # letters of a key that name a run


@dataclass(frozen=True)
class Trained:
    """One fine-tuned network: its record, its tests, and the rows that they stand in with their other seeds."""

    store: Store
    key: str
    record: dict[str, Any]
    tests: list[Result]
    rows: list[Cell]
    said: str  # which of several it is; empty where there was no choice

    @property
    def weights(self) -> Path:
        """The fine-tuned weights."""
        return self.store.folder(f"finetune-{self.key}") / WEIGHTS

    @property
    def pretrained(self) -> dict[str, Any] | None:
        """The record of the pretraining; None for a baseline."""
        key = self.record["identity"].get("pretrained")
        return _record(self.store, f"pretrain-{key}") if key else None

    @property
    def first(self) -> Result:
        """The test that says how images were prepared: one on the trained set where there is any."""
        return self.tests[0]


def choose(text: str, folders: Sequence[Path] = (), *, seed: int | None = None, labels: float | None = None) -> Trained:
    """The network that `text` names: a run's folder or key, a row's key, a stage. Of several the one with most labels
    and the lowest seed, unless `labels` (per cent) and `seed` say another."""
    stores = _stores(text, folders)
    every = cells(Index(stores).results)
    found = _named(text, every, stores)
    if not found:
        raise UsbenchError(f"'{text}' has no finished test, so nothing says how good it is: finish its run first.")
    by_key: dict[str, list[Result]] = {}
    for result in found:
        by_key.setdefault(result.finetuned, []).append(result)
    fitting = {k: r[0] for k, r in by_key.items() if _fits(r[0], seed, labels)}
    there = _there([r[0] for r in by_key.values()])
    if not fitting:
        asked = [f"{labels:g} % of the labels"] if labels is not None else []
        asked += [f"seed {seed}"] if seed is not None else []
        raise UsbenchError(f"'{text}' has no network of {' and '.join(asked)}: there is {there}.")
    best = min(_rank(result) for result in fitting.values())
    keys = [key for key, result in fitting.items() if _rank(result) == best]
    if len(keys) > 1:
        raise UsbenchError(f"'{text}' means {len(keys)} networks: name one of {listed(f'finetune-{k}' for k in keys)}.")
    row = fitting[keys[0]].row
    said = f"{row['label_fraction']:g} % of the labels, seed {row['seed']}" if len(by_key) > 1 else ""
    tests = sorted(
        (r for cell in every for r in cell.results if r.finetuned == keys[0]),
        key=lambda r: (r.row["shift"] != "in", ":" in r.row["shift"], r.row["shift"], str(r.row["test_data"])),
    )
    store = Store(tests[0].folder.parent.parent)
    record = _record(store, f"finetune-{keys[0]}")
    rows = [cell for cell in every if any(r.finetuned == keys[0] for r in cell.results)]
    return Trained(store, keys[0], record, tests, rows, f"{said} (there is {there})" if said else "")


def _record(store: Store, stage: str) -> dict[str, Any]:
    """The record of a training, with all its parts."""
    record = store.record(stage)
    for part in ("identity", "row", "facts"):
        if not isinstance(record, dict) or not isinstance(record.get(part), dict):
            raise UsbenchError(f"{store.folder(stage) / 'record.json'} lacks '{part}': delete its folder, run again.")
    return record


def _fits(result: Result, seed: int | None, labels: float | None) -> bool:
    row = result.row
    return seed in (None, int(row["seed"])) and labels in (None, float(row["label_fraction"]))


def _rank(result: Result) -> tuple[float, int]:
    return -float(result.row["label_fraction"]), int(result.row["seed"])


def _there(results: Sequence[Result]) -> str:
    """What there is to choose from, in words."""
    fractions = sorted({float(r.row["label_fraction"]) for r in results})
    seeds = sorted({int(r.row["seed"]) for r in results})
    return f"{listed(f'{f:g} %' for f in fractions)} with seed{'s' * (len(seeds) > 1)} {listed(map(str, seeds))}"


def _stores(text: str, folders: Sequence[Path]) -> list[Store]:
    """The stores to look in: those that were named, else the one that the path stands in, else runs/."""
    path = Path(text)
    around = [path.resolve(), *path.resolve().parents][:3] if path.is_dir() else []
    near = [folder for folder in around if (folder / "store.json").is_file()]
    return [Store(folder).check_schema() for folder in dict.fromkeys(folders or near or [Path("runs")])]


def _named(text: str, every: Sequence[Cell], stores: Sequence[Store]) -> list[Result]:
    """The tests of what a text names."""
    results = [result for cell in every for result in cell.results]
    if (folder := _run_folder(text, stores)) is not None:
        try:
            found = find(str(folder), every, stores)
        except (KeyError, TypeError, AttributeError) as error:
            raise UsbenchError(f"{folder / 'run.json'} cannot be read ({error}): run the same command again.") from None
        return [result for cell in found for result in cell.results]
    for store in stores:
        for stage in _stages(text, store):
            kind, _, key = stage.partition("-")
            if kind == "finetune":
                return [r for r in results if r.finetuned == key]
            if kind == "evaluate":
                return [r for r in results if r.folder.name == stage]
            return [r for r in results if _pretrained(store, r.finetuned) == key]
    return [result for cell in find(text, every, stores) for result in cell.results]


def _stages(text: str, store: Store) -> list[str]:
    """The finished stages that a text names, with or without their kind, by a path or not."""
    name = Path(text).name
    names = [name, *(f"{kind}-{name}" for kind in KINDS)] if name else []
    return [each for each in names if is_stage(each) and each.partition("-")[0] in KINDS and store.has(each)]


def _pretrained(store: Store, finetuned: str) -> str:
    with contextlib.suppress(UsbenchError, KeyError, TypeError):
        return str(store.record(f"finetune-{finetuned}")["identity"]["pretrained"])
    return ""


def _run_folder(text: str, stores: Sequence[Store]) -> Path | None:
    """The run's folder: by its path, its name in a store, or (the beginning of) its key."""
    for place in (Path(text), *(store.root / text for store in stores)):
        if text and (place / "run.json").is_file():
            return place
    if len(text) < LEAST:
        return None
    found = [run.folder for store in stores for run in kept.runs(store.root) if run.key.startswith(text)]
    if len(found) > 1:
        raise UsbenchError(f"'{text}' begins the keys of several runs ({listed(f.name for f in found)}): give more.")
    return found[0] if found else None
