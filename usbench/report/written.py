"""A leaderboard that lies somewhere as a CSV: its rows, their keys, and the suites that they are of."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from usbench.errors import UsbenchError
from usbench.report.results import BY_TEST

TELLING = ("chosen", "suite")  # tells rows of one key apart


def rows_of(text: str) -> dict[str, list[dict[str, str]]]:
    """The rows of a leaderboard's CSV by key; what was chosen among trials may stand beside what somebody asked for."""
    rows: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        if not row["key"]:
            raise ValueError("a row has no key")
        told = {k: v or "" for k, v in row.items() if k}
        alike = rows.setdefault(row["key"], [])
        if any(all(told.get(name) == other.get(name) for name in TELLING) for other in alike):
            raise ValueError(f"two rows have the key {row['key']}")
        alike.append(told)
    return rows


def suites_of(path: Path) -> set[str]:
    """The suites that the rows of a leaderboard are of; the empty name for rows of none."""
    return {row.get("suite", "") for rows in rows_of(path.read_text("utf-8")).values() for row in rows}


def keys_of(path: Path) -> set[str]:
    """The keys of the rows of a leaderboard; what its test set chose goes by the row that it is of."""
    try:
        rows = rows_of(path.read_text("utf-8"))
        if not all("score_mean" in row for alike in rows.values() for row in alike):
            raise KeyError("score_mean")
        return {key.removesuffix(BY_TEST) for key in rows}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        what = f"no column {error}" if isinstance(error, KeyError) else error
        raise UsbenchError(f"{path} cannot be read as a leaderboard ({what}): give its CSV.") from None
