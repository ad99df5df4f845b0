"""A run's folder: its spec, its leaderboard and its pictures, all derived from finished stages."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usbench.data.pack import Pack
from usbench.data.place import stored_packs
from usbench.errors import UsbenchError
from usbench.report import kept
from usbench.report.cells import Cell, cells
from usbench.report.confusion import Matrix, matrices
from usbench.report.families import families
from usbench.report.files import write_csv
from usbench.report.folds import shared_by
from usbench.report.masks import MASKS
from usbench.report.results import Result, evaluations, results, whole
from usbench.report.tables import tables_of
from usbench.runs.records import is_stage, write_json
from usbench.runs.stage import Plan
from usbench.runs.store import Store

ROBUSTNESS = "robustness.png"


@dataclass(frozen=True)
class Summary:
    """What there is to show of a run."""

    folder: Path
    cells: list[Cell]
    run: dict[str, Any]

    @property
    def missing(self) -> list[str]:
        """Baselines that the table lacks."""
        return list(self.run["missing"])

    @property
    def pictures(self) -> list[str]:
        """What is drawn of it: masks where there are some, mean ranks where there is enough to rank."""
        names = ["overlays.png"] if self.outlined else []
        names += ["curves.png", f"{score_name(self.cells)}.png"]
        names += [ROBUSTNESS] if any(cell.corrupted for cell in self.cells) else []
        return names + (["ranks.png"] if any(family.enough for family in families(self.cells)) else [])

    @property
    def outlined(self) -> list[tuple[Cell, Cell]]:
        """Of the rows that have masks of lesions, as their baselines do, those with the fewest labels; each beside its
        baseline."""
        every = [cell for cell in self.cells if not cell.corrupted]
        rows = [c for c in every if not c.row["baseline"]] or [c for c in every if c.row["baseline"] == "plain"]
        pairs = [(cell, cell.base or cell) for cell in rows]
        pairs = [pair for pair in pairs if all(map(_has_masks, pair)) and _has_lesions(pair[0])]
        least = min((cell.row["label_fraction"] for cell, _ in pairs), default=0)
        shown = [pair for pair in pairs if pair[0].row["label_fraction"] == least]
        return sorted(shown, key=lambda pair: pair[0].row["shift"] != "in")


def _has_masks(cell: Cell) -> bool:
    return (cell.results[0].folder / MASKS).is_file()


def _has_lesions(cell: Cell) -> bool:
    """Whether lesions are told from normal images there, and there are some."""
    return bool(cell.counts()["lesions"] and cell.counts()["images"])


def score_name(every: Sequence[Cell]) -> str:
    """The primary metric, as a file may be called."""
    return "".join(c if c.isalnum() or c == "_" else "-" for c in every[0].primary)[:40]


def packs_of(store: Store) -> list[Path]:
    """The packs that the runs of a store tested on, where they lay."""
    return list(dict.fromkeys(Path(place) for run in kept.runs(store.root) for place in run.packs.values()))


def places_of(stores: Iterable[Store]) -> dict[str, Path]:
    """Where packs lie, by their digest: those of the stores' runs, then those of the data home."""
    found: dict[str, Path] = {}
    for path in (*(path for store in stores for path in packs_of(store)), *stored_packs()):
        with contextlib.suppress(UsbenchError):
            found.setdefault(Pack(path).digest, path)
    return found


def run_name(plan: Plan) -> str:
    """A folder name that a person finds again."""
    words = "-".join((plan.spec.loss, plan.spec.aug))
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in words)[:60] + f"-{plan.key[:8]}"


def summarise(plan: Plan, store: Store) -> Summary:
    """Write a run's folder; pictures are drawn once."""
    folder = store.root / run_name(plan)
    folder.mkdir(exist_ok=True)
    run = {
        "schema": 1, "key": plan.key, "spec": plan.spec.model_dump(mode="json"), "missing": plan.missing,
        "stages": [[stage.id, stage.title] for stage in plan.stages],
        "packs": {s.row["test_data"]: s.places["test"] for s in plan.stages if s.kind == "evaluate"},
    }  # fmt: skip
    write_json(folder / "run.json", run)
    summary = read_summary(folder, store)
    for name, table in tables_of(summary.cells, (stage.id for stage in plan.stages), store).items():
        write_csv(table, folder / name)
    if not all((folder / name).is_file() for name in summary.pictures):
        draw(summary, store)
    return summary


def read_summary(folder: Path, store: Store) -> Summary:
    """A run's folder as it stands in the store."""
    try:
        run = json.loads((folder / "run.json").read_text("utf-8"))
        stages = [(str(stage_id), str(title)) for stage_id, title in run["stages"]]
        _ = run["missing"], dict(run["packs"]), dict(run["spec"])
        if wrong := [stage_id for stage_id, _ in stages if not is_stage(stage_id)]:
            raise ValueError(f"no stage is called {wrong[0][:80]!r}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UsbenchError(f"{folder / 'run.json'} cannot be read ({error}): run the same command again.") from None
    except KeyError as error:
        raise UsbenchError(f"{folder / 'run.json'} cannot be read (no {error}): run the same command again.") from None
    tests = [stage_id for stage_id, _ in stages if stage_id.startswith("evaluate-")]
    return Summary(folder, cells(results(store, tests)), run)


def of_all_folds(every: Sequence[Cell], store: Store) -> list[Matrix]:
    """The confusion matrices of some rows' methods, pooled over all folds and seeds of them in the store."""
    own = [result for cell in every for result in cell.results]
    if not any(result.facts.get("classes") for result in own):
        return []
    wanted = {shared_by(result) for result in own}
    stored = [found for folder in evaluations(store) if isinstance(found := whole(store, folder), Result)]
    return matrices(result for result in stored if shared_by(result) in wanted)


def draw(summary: Summary, store: Store) -> None:
    """All pictures of a run."""
    from usbench.report import figures
    from usbench.report.board_figures import against_labels
    from usbench.report.robustness import lines_of

    every, folder = summary.cells, summary.folder
    if "overlays.png" in summary.pictures:
        _draw_overlays(summary)
    stages = [(stage_id, title) for stage_id, title in summary.run["stages"]]
    figures.curves(stages, store, folder / "curves.png")
    against_labels(every, folder / f"{score_name(every)}.png")
    if ROBUSTNESS in summary.pictures:
        figures.robustness(lines_of(every), folder / ROBUSTNESS)
    if "ranks.png" in summary.pictures:
        figures.mean_ranks([family for family in families(every) if family.enough], folder / "ranks.png")


def _draw_overlays(summary: Summary) -> None:
    from usbench.report import figures

    rows = summary.outlined
    tested = {cell.row["test_data"] for cell, _ in rows}
    packs = {name: Pack(Path(path)) for name, path in summary.run["packs"].items() if name in tested}
    figures.overlays(rows, packs, summary.folder / "overlays.png")
