"""A suite's folder in the store: its leaderboard and its plan, derived from finished stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from usbench.report.cells import Cell, cells
from usbench.report.confusion import NAME as CONFUSION
from usbench.report.confusion import confusion_table, matrices
from usbench.report.files import write_csv
from usbench.report.leaderboard import leaderboard
from usbench.report.results import results
from usbench.runs.stage import Stage
from usbench.runs.store import Store, write_json
from usbench.runs.suite import SuitePlan


def suite_folder(plan: SuitePlan, store: Store) -> Path:
    """Where a suite's table lies."""
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in plan.suite.name)[:60]
    return store.root / f"suite-{name}"


def write_suite(plan: SuitePlan, tests: list[Stage], store: Store) -> tuple[Path, list[Cell]]:
    """Write a suite's leaderboard; returns its folder and the rows."""
    folder = suite_folder(plan, store)
    folder.mkdir(exist_ok=True)
    # First of all: from here on it is this that says that the stages are needed.
    write_json(
        folder / "suite.json",
        {
            "schema": 1, "suite": plan.suite.name, "about": plan.suite.about, "missing": plan.missing,
            "specs": [run.run.spec.model_dump(mode="json") for run in plan.runs],
            "choices": [
                {
                    "spec": run.run.spec.model_dump(mode="json"), "over": run.run.selection.over,
                    "trials": [trial.spec.model_dump(mode="json") for _, trial in run.plans],
                }
                for run in plan.runs if run.run.selection
            ],
            "tests": [[stage.id, stage.title] for stage in tests],
            "stages": sorted({stage.id for stage in (*plan.trainings, *tests)}),
        },
    )  # fmt: skip
    # A test may have been done for another run: what stands here is what this suite asked.
    asked = {stage.id: stage.row for stage in tests}
    found = [
        replace(result, row={**asked[result.folder.name], "suite": plan.suite.name})
        for result in results(store, [stage.id for stage in tests])
    ]
    write_csv(leaderboard(found), folder / "leaderboard.csv")
    if pooled := matrices(found):
        write_csv(confusion_table(pooled), folder / CONFUSION)
    return folder, cells(found)
