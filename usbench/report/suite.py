"""A suite's folder in the store: its leaderboard and its plan, derived from finished stages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from usbench.errors import UsbenchError
from usbench.report.cells import Cell, cells
from usbench.report.files import write_csv
from usbench.report.forest import NAME as PICTURE
from usbench.report.forest import forest
from usbench.report.results import results
from usbench.report.tables import tables_of
from usbench.runs.records import is_stage, write_json
from usbench.runs.stage import Stage
from usbench.runs.store import Store
from usbench.runs.suite import SuitePlan


def suite_folder(plan: SuitePlan, store: Store) -> Path:
    """Where a suite's table lies."""
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in plan.suite.name)[:60]
    return store.root / f"suite-{name}"


def replaced(plan: SuitePlan, store: Store) -> str:
    """A line for who is about to replace the table of another suite of this name; empty where nobody's is."""
    folder = suite_folder(plan, store)
    try:
        said = json.loads((folder / "suite.json").read_text("utf-8"))
        specs, stages = [plan["spec"] for plan in said["plans"]], set(said["stages"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    own = {stage.id for run in plan.runs for _, each in run.plans for stage in each.stages}
    if specs == [planned["spec"] for planned in plans_of(plan)] or stages <= own:
        return ""
    return (
        f"{folder.name} holds the table of another suite of this name, which this one replaces; "
        "name it otherwise to keep both."
    )


def write_suite(plan: SuitePlan, tests: list[Stage], store: Store) -> tuple[Path, list[Cell]]:
    """Write a suite's leaderboard; returns its folder and the rows."""
    folder = suite_folder(plan, store)
    folder.mkdir(exist_ok=True)
    stages = sorted({stage.id for stage in (*plan.trainings, *tests)})
    # First of all: from here on it is this that says that the stages are needed.
    write_json(
        folder / "suite.json",
        {
            "schema": 1, "suite": plan.suite.name, "about": plan.suite.about, "missing": plan.missing,
            "plans": plans_of(plan), "tests": [[stage.id, stage.title] for stage in tests],
            "rows": {stage.id: stage.row for stage in tests},
            "stages": stages,
        },
    )  # fmt: skip
    every = suite_cells(folder, store)
    for name, table in tables_of(every, stages, store).items():
        write_csv(table, folder / name)
    forest(every, folder / PICTURE)
    return folder, every


def plans_of(plan: SuitePlan) -> list[dict[str, Any]]:
    """Every run and every trial, and the stages that each asks for."""
    found = []
    for run in plan.runs:
        selection, shared = run.run.selection, run.run.spec.model_dump(mode="json")
        common = {"spec": shared, "over": {k: list(v) for k, v in selection.over.items()}} if selection else None
        for _, each in run.plans:
            stages = sorted(stage.id for stage in each.stages)
            found.append({"spec": each.spec.model_dump(mode="json"), "common": common, "stages": stages})
    return found


def suite_cells(folder: Path, store: Store) -> list[Cell]:
    """The rows of a suite as it asked for them: a test may have been done for another run."""
    try:
        said = json.loads((folder / "suite.json").read_text("utf-8"))
        name, asked = str(said["suite"]), {str(stage_id): dict(row) for stage_id, row in said["rows"].items()}
        if wrong := [stage_id for stage_id in asked if not is_stage(stage_id)]:
            raise ValueError(f"no stage is called {wrong[0][:80]!r}")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsbenchError(f"{folder / 'suite.json'} cannot be read ({error}): run the suite again.") from None
    except KeyError as error:
        raise UsbenchError(f"{folder / 'suite.json'} cannot be read (no {error}): run the suite again.") from None
    return cells([replace(r, row={**asked[r.folder.name], "suite": name}) for r in results(store, asked)])
