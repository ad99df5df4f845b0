"""Makes everything again that can be made again: keys, digests of files, scores from masks, tables from scores.

Nothing derived is trusted on the way: the index is not read. What cannot be made again here is said to be skipped.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from usbench.errors import UsbenchError
from usbench.report.cells import Cell, cells
from usbench.report.files import csv_text
from usbench.report.kept import together
from usbench.report.leaderboard import board_of
from usbench.report.remake import Remaker
from usbench.report.results import Result, whole
from usbench.report.suite import suite_cells
from usbench.report.summary import read_summary
from usbench.report.tables import BESIDE, BOARD, stages_of, tables_of
from usbench.report.written import TELLING, keys_of, rows_of, suites_of
from usbench.runs.records import RECORD, digests_of, seal_of
from usbench.runs.store import Store
from usbench.spec import key_of

OLD = "a record from before files were sealed"
AGAIN = "seconds and memory of a training that was made again"
MEASURED = ("device_seconds", "peak_mib")


@dataclass
class Report:
    """What was found: what is wrong with the rows it feeds, what could not be looked at and why, and what is well."""

    wrong: list[tuple[str, list[str]]] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)  # reason → how many
    stages: int = 0
    rows: int = 0

    def skip(self, reason: str) -> None:
        """Count what cannot be made again."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


class Verifier:
    """Goes through a store's stages and tables."""

    def __init__(self, store: Store) -> None:
        self.store, self.report = store, Report()
        self.folders = sorted(
            f for f in store.stages.iterdir() if f.is_dir() and f.suffix != ".part" and f.name[0] != "."
        )
        self.records: dict[str, dict[str, Any]] = {}
        self.unreadable: dict[str, str] = {}
        for folder in self.folders:
            try:
                self.records[folder.name] = dict(store.record(folder.name))
            except (UsbenchError, TypeError, ValueError) as error:
                what = str(error).rpartition(": ")[0] or str(error).rstrip(".")
                self.unreadable[folder.name] = what if (folder / RECORD).is_file() else f"it has no {RECORD}"
        self.remaker = Remaker(store)

    def fed_by(self, stage_id: str) -> list[str]:
        """The leaderboard rows that a stage feeds, by name and key."""
        reached = {stage_id}
        for kind, link in (("finetune", "pretrained"), ("evaluate", "finetuned")):
            source = "pretrain" if kind == "finetune" else "finetune"
            for name, record in self.records.items():
                if name.startswith(kind) and f"{source}-{_of(record, 'identity').get(link)}" in reached:
                    reached.add(name)
        rows = [_of(self.records[name], "row") for name in sorted(reached) if name.startswith("evaluate-")
                if name in self.records]  # fmt: skip
        return list(dict.fromkeys(map(row_name, rows)))

    def stages(self, names: Iterable[str] | None = None) -> Iterator[str]:
        """Check each stage, or those named; gives the name of each before it is looked at."""
        chosen = [f.name for f in self.folders] if names is None else sorted(set(names))
        for name in chosen:
            yield name
            self.report.stages += 1
            for problem in self._stage(name):
                self.report.wrong.append((f"{self.store.stages / name / problem}", self.fed_by(name)))

    def _stage(self, name: str) -> list[str]:
        """What is wrong with a stage, each beginning with the file."""
        if name in self.unreadable:
            return [f"record.json: missing or damaged ({self.unreadable[name]}); delete the folder and run again"]
        if name not in self.records:
            return ["record.json: the stage is missing; run again"]
        record, folder = self.records[name], self.store.stages / name
        wrong = []
        if f"{record.get('kind')}-{_key_of(_of(record, 'identity'))}" != name:
            wrong.append("record.json: its key is not that of what it says it is")
        if "seal" in record and record["seal"] != seal_of(record):
            wrong.append("record.json: it was changed after it was written")
        wrong += self._files(folder, record)
        if name.startswith("evaluate-"):
            missing = whole(self.store, folder)
            if isinstance(missing, str):
                wrong.append(f"record.json: {missing.partition(', which is ')[2]}")
            else:
                wrong += self._scores(missing, record)
        return wrong

    def _files(self, folder: Path, record: Mapping[str, Any]) -> list[str]:
        if "files" not in record:
            self.report.skip(OLD)
            return []
        expected, found = _of(record, "files"), digests_of(folder)
        missing = [name for name in expected if name not in found]
        for name in [name for name in missing if self.store.leaves_out(name)]:
            missing.remove(name)
            self.report.skip(f"{name}, which was not published")
        wrong = [f"{name}: it is missing" for name in missing]
        wrong += [
            f"{name}: it is not what was recorded"
            for name in expected
            if found.get(name, "") not in ("", expected[name])
        ]
        return wrong + [f"{name}: nobody recorded it" for name in found if name not in expected]

    def _scores(self, result: Result, record: Mapping[str, Any]) -> list[str]:
        answer = self.remaker.compare(result, record)
        if answer.skipped:
            self.report.skip(answer.skipped)
        return [answer.wrong] if answer.wrong else []

    def tables(self, place: Path | None = None) -> None:
        """Check the tables of every run and suite against the scores, those that lie in another place by its files."""
        kinds = ("run.json", "suite.json")
        for said in sorted(path for name in kinds for path in self.store.root.glob(f"*/{name}")):
            try:
                run = said.name == kinds[0]
                every = read_summary(said.parent, self.store).cells if run else suite_cells(said.parent, self.store)
                made = tables_of(every, stages_of(said), self.store)
            except (UsbenchError, KeyError, TypeError) as error:
                self.report.wrong.append((f"{said.parent / BOARD}: cannot be made again ({error})", []))
                continue
            if place is None:
                self.table(said.parent / BOARD, made[BOARD])
            for name in BESIDE:
                self._lines((place or said.parent) / name, made.get(name))

    def _lines(self, path: Path, made: pd.DataFrame | None) -> None:
        """Check that each line of a table is one that is made again; a store may have finished more since."""
        try:
            written = path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self.report.wrong.append((f"{path}: it cannot be read ({error})", []))
            return
        again = [] if made is None else csv_text(made).splitlines()
        known = set(again)
        wrong = [line for line, text in enumerate(written, 1) if text not in known]
        if wrong and written[:1] == again[:1]:
            alike = {_unmeasured(again[0], text) for text in again}
            other = [line for line in wrong if _unmeasured(again[0], written[line - 1]) not in alike]
            for _ in range(len(wrong) - len(other)):
                self.report.skip(AGAIN)
            wrong = other
        if wrong:
            more = f", and {len(wrong) - 1} more lines" if len(wrong) > 1 else ""
            self.report.wrong.append((f"{path}: line {wrong[0]} is another when made again{more}", []))

    def table(self, path: Path, board: pd.DataFrame) -> None:
        """Check a leaderboard against the rows that it should have."""
        try:
            written, made = rows_of(path.read_text("utf-8")), rows_of(csv_text(board))
        except (OSError, ValueError, KeyError, csv.Error) as error:
            self.report.wrong.append((f"{path}: it cannot be read as a leaderboard ({error})", []))
            return
        rows = [row for alike in written.values() for row in alike]
        self.report.rows += len(rows)
        columns = {name for alike in made.values() for row in alike for name in row}
        if rows and (lacking := sorted(columns - {name for row in rows for name in row})):
            self.report.wrong.append((f"{path}: it lacks the column {lacking[0]} and {len(lacking) - 1} more", []))
        for row in rows:
            if not (alike := made.get(key := row["key"])):
                self.report.wrong.append((f"{path}: nothing in {self.store.name} makes row {key}", [key]))
                continue
            again = next((one for one in alike if all(one.get(n) == row.get(n) for n in TELLING)), alike[0])
            alike.remove(again)
            apart = [(name, row[name], again[name]) for name in row if name in again and row[name] != again[name]]
            if apart:
                name, mine, remade = apart[0]
                more = f", and {len(apart) - 1} more columns" if len(apart) > 1 else ""
                what = f"{name} is '{mine}' and is '{remade}' when made again{more}"
                self.report.wrong.append((f"{path}: {what}", [f"{row.get('loss', '')}, key {key}"]))
        self.report.wrong += [(f"{path}: row {key} is missing", [key]) for key, left in made.items() for _ in left]

    def csv(self, path: Path) -> Iterator[str]:
        """Check a leaderboard that was written somewhere, and the stages of its rows."""
        keys, suites = keys_of(path), suites_of(path)
        chosen = [name for name, record in self.records.items() if _of(record, "row").get("setting") in keys]
        names = [name for name in chosen if name.startswith("evaluate-")]
        tuned = [f"finetune-{_of(self.records[name], 'identity').get('finetuned')}" for name in names]
        sources = [_of(self.records.get(name, {}), "identity").get("pretrained") for name in tuned]
        yield from self.stages([*names, *tuned, *(f"pretrain-{key}" for key in sources if key)])
        try:
            self.table(path, board_of([cell for cell in self._asked(suites, names) if cell.row["setting"] in keys]))
        except UsbenchError as error:
            self.report.wrong.append((f"{path}: cannot be made again ({error})", []))

    def _asked(self, suites: set[str], names: Iterable[str]) -> list[Cell]:
        """The rows as the suites asked for them whose names stand in a table, or as they are recorded."""
        if suites == {""}:
            found = [whole(self.store, self.store.folder(name)) for name in names]
            return cells([r for r in found if isinstance(r, Result)], together=together(self.store.root))
        folders = {path.parent for path in self.store.root.glob("*/suite.json")}
        every = [cell for folder in sorted(folders) for cell in suite_cells(folder, self.store)]
        if lacking := suites - {cell.row["suite"] for cell in every}:
            raise UsbenchError(f"{self.store.name} has no suite '{sorted(lacking)[0]}'")
        return [cell for cell in every if cell.row["suite"] in suites]


def _unmeasured(head: str, line: str) -> tuple[str, ...]:
    """The cells of a table's line, but for numbers that a clock and the memory gave."""
    try:
        pairs = list(zip(next(csv.reader([head]), []), next(csv.reader([line]), []), strict=True))
    except (csv.Error, ValueError):
        return (line,)
    return tuple(cell for name, cell in pairs if name not in MEASURED or not cell.replace(".", "", 1).isdigit())


def row_name(row: Mapping[str, Any]) -> str:
    """A row as a reader finds it again."""
    fraction = row.get("label_fraction")
    labels = f"{fraction:g} %" if isinstance(fraction, float | int) else "?"
    return f"{row.get('loss')} on {row.get('test_data')} ({row.get('shift')}, {labels}), key {row.get('setting')}"


def _key_of(identity: dict[str, Any]) -> str:
    """The key of what a record says it is; nothing where it has numbers that no identity has."""
    try:
        return key_of(identity)
    except ValueError:
        return ""


def _of(record: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A part of a record that should be a table."""
    found = record.get(part)
    return dict(found) if isinstance(found, Mapping) else {}
