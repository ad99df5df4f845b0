"""What a terminal, a script and a notebook show alike. Names come from strangers: none is run or rendered."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from usbench.report.cells import Cell
from usbench.report.robustness import robustness_tables
from usbench.report.table import footnotes, results_tables

WIDTH = 100  # columns, where no terminal says how many there are
BLOCK = '<pre style="white-space:pre;overflow-x:auto;line-height:normal">{code}</pre>'

Part = Table | Text


def words(text: str) -> Text:
    """Words that wrap."""
    return Text(text)


def whole(text: str) -> Text:
    """A line that is not cut, so that what it names can be copied."""
    return Text(text, no_wrap=True, overflow="ignore")


def parts_of(every: Sequence[Cell], missing: Sequence[str], files: Iterable[object] = ()) -> Iterator[Part]:
    """The tables of some rows, what a reader must know of them, and where their files are."""
    yield from results_tables(every)
    yield from robustness_tables(every)
    yield from map(words, footnotes(every, missing))
    yield from (whole(f"  {file}") for file in files)


def print_parts(console: Console, parts: Iterable[Part]) -> None:
    """Print them; what is not to be cut is not."""
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))


class Shown(ABC):
    """Something made of tables and lines."""

    @abstractmethod
    def parts(self) -> Iterator[Part]:
        """What there is to show, from above to below."""

    def print(self, console: Console | None = None) -> None:
        """Print it, on the terminal or where the console leads."""
        print_parts(console or Console(), self.parts())

    def summary(self) -> str:
        """It as plain text."""
        page = io.StringIO()
        self.print(Console(file=page, width=WIDTH, force_jupyter=False, force_terminal=False))
        return page.getvalue()

    def _repr_html_(self) -> str:
        page = Console(file=io.StringIO(), width=WIDTH, force_jupyter=False, record=True)
        self.print(page)
        return page.export_html(inline_styles=True, code_format=BLOCK)
