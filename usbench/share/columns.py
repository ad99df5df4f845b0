"""The tables of many stages as few: those of the same images as one, with a line a column.

Names, groups and sizes, which all of them have, are then written once, and like stands beside like: a zip of them is a
quarter smaller.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

FEW = "tables/"  # begins the names of joined ones


def joined(members: Mapping[str, bytes]) -> dict[str, bytes]:
    """Tables, called `stages/ID/NAME`, as few, called `tables/NUMBER-NAME`; one that would not come back as it was is
    left as it is.

    The first line names the stages. Every other is a column: the stage, or nothing where all have it, title, values.
    """
    alike: dict[tuple[str, str, str], dict[str, list[str]]] = defaultdict(dict)
    found: dict[str, bytes] = {}
    for member, raw in members.items():
        _, stage, name = member.split("/")
        if (rows := _rows(raw)) is not None:
            columns = [_written([column]) for column in zip(*rows, strict=True)]
            alike[name, _written(rows[:1]), columns[0]][stage] = columns
        else:
            found[member] = raw
    for number, ((name, *_), stages) in enumerate(alike.items(), 1):
        found[f"{FEW}{number}-{name}"] = "".join(_lines(stages)).encode("utf-8")
    return found


def _rows(raw: bytes) -> list[list[str]] | None:
    """Those of a table; None where it is none, or is written otherwise than it would be here."""
    try:
        rows = list(_read(raw))
    except ValueError:
        return None
    return rows if len(set(map(len, rows))) == 1 and _written(rows).encode("utf-8") == raw else None


def _lines(stages: Mapping[str, list[str]]) -> Iterator[str]:
    yield _written([list(stages)])
    for columns in zip(*stages.values(), strict=True):
        if len(set(columns)) == 1:
            yield f",{columns[0]}"
        else:
            yield from (f"{stage},{column}" for stage, column in zip(stages, columns, strict=True))


def parted(member: str, raw: bytes) -> Iterator[tuple[str, bytes]]:
    """The tables that were joined in one, by their own names. One that is damaged raises `ValueError`."""
    name = member.removeprefix(FEW).partition("-")[2]
    lines = _read(raw)
    if not (names := next(lines, [])):
        raise ValueError(f"{member} is empty")
    columns: dict[str, list[str]] = {stage: [] for stage in names}  # a line each: far smaller than its values apart
    for stage, *values in lines:
        column = _written([values])
        for owner in [stage] if stage else names:
            if owner not in columns:
                raise ValueError(f"{member} has a column of '{owner}', and no such stage")
            columns[owner].append(column)
    for stage, table in columns.items():
        rows = zip(*_read("".join(table).encode("utf-8")), strict=True)
        yield f"stages/{stage}/{name}", _written(rows).encode("utf-8")


def _read(raw: bytes) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(raw.decode("utf-8"), newline=""))
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _written(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
