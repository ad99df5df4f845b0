"""The comparisons by name, done one after the other, shown and saved. What needs torch is imported when it is done."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from usbench.bench.lines import Line, as_table, short
from usbench.bench.setting import WHAT, Setting
from usbench.errors import unknown


@dataclass(frozen=True)
class Bench:
    """All that was found, and on what."""

    machine: dict[str, Any]
    setting: Setting
    lines: list[Line]

    def save(self, folder: Path) -> list[Path]:
        """bench.csv, bench.json and bench.png."""
        from usbench.bench.picture import draw
        from usbench.report.files import csv_text

        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"bench.{form}" for form in ("csv", "json", "png")]
        table = as_table(self.lines)
        paths[0].write_text(csv_text(table), "utf-8")
        rows = [{key: value for key, value in line.row().items() if value not in ("", None)} for line in self.lines]
        for row, line in zip(rows, self.lines, strict=True):
            row |= {"shares": dict(line.shares)} if line.shares else {}
            row |= {"values": list(line.samples.values)} if line.samples else {}
        said = {"machine": self.machine, "setting": _plain(self.setting), "lines": rows}
        paths[1].write_text(json.dumps(said, indent=1) + "\n", "utf-8")
        draw(self, paths[2])
        return paths


def check(names: Iterable[str]) -> tuple[str, ...]:
    """The comparisons that are wanted, each once, in the order of the list; all of them for none."""
    wanted = list(names)
    for name in wanted:
        if name not in WHAT:
            raise unknown("comparison", name, WHAT)
    return tuple(name for name in WHAT if not wanted or name in wanted)


def run(setting: Setting, names: Iterable[str], begin: Callable[[str], None] = lambda name: None) -> Bench:
    """Do the comparisons; `begin` is told the name of each."""
    from usbench.bench.machine import machine
    from usbench.bench.timing import threads_pinned
    from usbench.runs.stages import globals_kept
    from usbench.train.memory import keep_freed_memory

    wanted = check(names)
    found = machine(setting.device, setting.threads)
    lines: list[Line] = []
    with ExitStack() as stack:
        keep_freed_memory()
        stack.enter_context(globals_kept())
        stack.enter_context(threads_pinned(setting.threads))
        for name in wanted:
            begin(name)
            lines += _measured(name, setting)
    return Bench(found, setting, lines)


def _measured(name: str, setting: Setting) -> Iterator[Line]:
    yield from importlib.import_module(f"usbench.bench.{name}").measure(setting)


def shown(lines: list[Line]) -> Iterator[Table | str]:
    """A table a comparison, and below it what each of its lines is."""
    for what in dict.fromkeys(line.case.what for line in lines):
        some = [line for line in lines if line.case.what == what]
        columns = ("median", "quartiles", "unit", "ratio", "asked")
        rows = [_numbers(line) for line in some]
        table = Table(title=f"{what}: {WHAT[what]}", title_justify="left", title_style="bold", box=SIMPLE)
        kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
        for column in ("under", "side", *(columns[place] for place in kept)):
            table.add_column(column, justify="right" if column in ("median", "quartiles", "ratio") else "left")
        before = ""
        for line, row in zip(some, rows, strict=True):
            under = str(line.case)
            table.add_row(under if under != before else "", line.side, *(row[place] for place in kept))
            before = under
        yield table
        notes = dict.fromkeys((line.side, line.note) for line in some if line.note)
        yield "\n".join(f"  {side}: {note}." for side, note in notes) + "\n"


def _numbers(line: Line) -> tuple[str, str, str, str, str]:
    asked = f"{line.asked} {'met' if line.met else 'missed'}" if line.asked else ""
    if line.samples is None:
        return "–", "", "", "", asked
    low, high = line.samples.quartiles
    spread = f"{short(low)} – {short(high)}" if len(line.samples.values) > 1 else ""
    ratio = f"{line.ratio.median:.3g} {line.ratio_of}" if line.ratio else ""
    return short(line.samples.median), spread, line.unit, ratio, asked


def _plain(setting: Setting) -> dict[str, Any]:
    kept = {key: value for key, value in vars(setting).items() if key not in ("asked", "chosen", "folders", "store")}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}
