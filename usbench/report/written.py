"""A leaderboard that lies somewhere as a CSV: its rows, their keys, and the suites that they are of."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from usbench.errors import UsbenchError
from usbench.report.results import BY_TEST


def rows_of(text: str) -> dict[str, dict[str, str]]:
    """The rows of a leaderboard's CSV by key; what was chosen among trials may stand beside what somebody asked for."""
    rows: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        if not row["key"]:
            raise ValueError("a row has no key")
        name = f"{row['key']}, {chosen}" if (chosen := row.get("chosen")) else row["key"]
        if name in rows:
            raise ValueError(f"two rows have the key {name}")
        rows[name] = {k: v or "" for k, v in row.items() if k}
    return rows


def suites_of(path: Path) -> set[str]:
    """The suites that the rows of a leaderboard are of; the empty name for rows of none."""
    return {row.get("suite", "") for row in rows_of(path.read_text("utf-8")).values()}


def keys_of(path: Path) -> set[str]:
    """The keys of the rows of a leaderboard; what its test set chose goes by the row that it is of."""
    try:
        rows = rows_of(path.read_text("utf-8"))
        if not all("score_mean" in row for row in rows.values()):
            raise KeyError("score_mean")
        return {row["key"].removesuffix(BY_TEST) for row in rows.values()}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        what = f"no column {error}" if isinstance(error, KeyError) else error
        raise UsbenchError(f"{path} cannot be read as a leaderboard ({what}): give its CSV.") from None
