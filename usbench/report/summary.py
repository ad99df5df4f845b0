"""A run's folder: its spec, its leaderboard and its pictures, all derived from finished stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usbench.data.pack import Pack
from usbench.errors import UsbenchError
from usbench.report.leaderboard import Cell, baseline_of, cells, leaderboard, results, write_csv
from usbench.runs.plan import Plan
from usbench.runs.store import Store, write_json

PICTURES = ("overlays.png", "curves.png", "dice.png")
ROBUSTNESS = "robustness.png"  # where images were corrupted


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
    def pictures(self) -> tuple[str, ...]:
        """The files of its pictures."""
        return (*PICTURES, ROBUSTNESS) if any(":" in cell.row["shift"] for cell in self.cells) else PICTURES


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
    found = [result for cell in summary.cells for result in cell.results]
    write_csv(leaderboard(found), folder / "leaderboard.csv")
    if not all((folder / name).is_file() for name in summary.pictures):
        draw(summary, store)
    return summary


def read_summary(folder: Path, store: Store) -> Summary:
    """A run's folder as it stands in the store."""
    import json

    try:
        run = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsbenchError(f"{folder / 'run.json'} cannot be read ({error}): run the same command again.") from None
    tests = [stage_id for stage_id, _ in run["stages"] if stage_id.startswith("evaluate-")]
    return Summary(folder, cells(results(store, tests)), run)


def draw(summary: Summary, store: Store) -> None:
    """All pictures of a run."""
    from usbench.report import figures
    from usbench.report.robustness import lines_of

    every = [cell for cell in summary.cells if ":" not in cell.row["shift"]]
    rows = [c for c in every if not c.row["baseline"]] or [c for c in every if c.row["baseline"] == "plain"]
    least = min(c.row["label_fraction"] for c in rows)
    shown = sorted((c for c in rows if c.row["label_fraction"] == least), key=lambda c: c.row["shift"] != "in")
    packs = {name: Pack(Path(path)) for name, path in summary.run["packs"].items()}
    figures.overlays(shown, _bases(shown, every), packs, summary.folder / "overlays.png")
    stages = [(stage_id, title) for stage_id, title in summary.run["stages"]]
    figures.curves(stages, store, summary.folder / "curves.png")
    figures.dice_against_labels(every, summary.folder / "dice.png")
    if ROBUSTNESS in summary.pictures:
        figures.robustness(lines_of(summary.cells), summary.folder / ROBUSTNESS)


def _bases(shown: Sequence[Cell], every: Sequence[Cell]) -> list[Cell]:
    return [baseline_of(cell, every) or cell for cell in shown]
