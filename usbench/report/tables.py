"""The tables in the folder of a run or a suite."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from usbench.errors import UsbenchError
from usbench.report import confusion, trainings
from usbench.report.cells import Cell
from usbench.report.leaderboard import board_of
from usbench.runs.records import is_stage
from usbench.runs.store import Store

BOARD = "leaderboard.csv"
BESIDE = (confusion.NAME, trainings.NAME)  # what stands beside it, where there is something to say


def tables_of(every: Sequence[Cell], stages: Iterable[str], store: Store) -> dict[str, pd.DataFrame]:
    """The tables of rows and of the stages behind them, by the name of the file."""
    made = {BOARD: board_of(every), trainings.NAME: trainings.trainings_table(store, filter(store.has, stages))}
    if found := confusion.matrices(result for cell in every for result in cell.results):
        made[confusion.NAME] = confusion.confusion_table(found)
    return made


def stages_of(path: Path) -> list[str]:
    """The stages that a run or a suite stands on."""
    try:
        said = json.loads(path.read_text("utf-8"))["stages"]
        found = [part if isinstance(part, str) else str(part[0]) for part in said]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UsbenchError(f"{path} cannot be read ({error}): run the same command again.") from None
    if wrong := [name for name in found if not is_stage(name)]:
        raise UsbenchError(f"{path} cannot be read (no stage is called {wrong[0][:80]!r}): run the same command again.")
    return found
