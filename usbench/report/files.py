"""The leaderboard as CSV and as Markdown. Names come from strangers: none is run, rendered or breaks a line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from usbench.errors import UsbenchError
from usbench.whole import written

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # what makes a spreadsheet run a cell, also in its wide form
MARKS = "\\`*_{}[]()#!|~$:"  # what Markdown may make something of
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
HEAD = (
    "loss", "aug", "backbone", "init", "protocol", "pretrained on", "pretrain labels", "trained on", "tested on",
    "fold", "shift", "labels", "metric", "mean [95 %]", "difference [95 %]", "p (Holm)", "rank", "mean rank", "step by",
    "seeds", "images", "groups", "key",
)  # fmt: skip


TEXTS = (
    "loss", "aug", "backbone", "init", "protocol", "pretrain_data", "pretrain_labels", "train_data", "test_data",
    "fold",
)  # fmt: skip


def one_line(text: str) -> str:
    """Text on one line, without characters that a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def visible(value: Any) -> str:
    """Text on one line in which nothing is hidden: what does not show, or turns a line around, is written out."""
    return "".join(c if c.isprintable() else f"⟨U+{ord(c):04X}⟩" for c in " ".join(str(value).split()))


def inert(value: Any) -> Any:
    """Text that a spreadsheet will not run as a formula, on one line."""
    if not isinstance(value, str):
        return value
    line = one_line(value)
    return f"'{line}" if line.startswith(FORMULA) else line


def csv_text(table: pd.DataFrame) -> str:
    """The table as CSV; equal tables give equal text."""
    texts = {str(name): table[name].map(inert) for name in table if not pd.api.types.is_numeric_dtype(table[name])}
    written = table.assign(**texts).rename(columns=inert)
    return written.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def plain(value: Any) -> str:
    """Text as Markdown shows it, letter by letter."""
    line = str(inert(str(value)))
    escaped = "".join(ENTITIES.get(c, f"\\{c}" if c in MARKS else c) for c in line)
    return escaped.replace("@", "&#64;").replace("www.", "www&#46;")


def markdown_text(table: pd.DataFrame) -> str:
    """The columns that a reader looks at, as a Markdown table; one for each metric, shift apart where it must be."""
    parts = [
        f"### {plain(primary)}{f', {what}' if what else ''}\n\n{_table(some)}" for primary, what, some in blocks(table)
    ]
    return "\n\n".join(parts) + "\n"


def blocks(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The tables that readers look at: the metric, what sets the rows apart (mostly nothing), and the rows."""
    corrupted, seen = table["shift"].astype(str).str.contains(":"), table["shift"] == "out-transductive"
    kinds = {"": ~corrupted & ~seen, "images of the target were pretrained on": seen, "corrupted images": corrupted}
    for primary in dict.fromkeys(table.primary):
        for what, rows in kinds.items():
            some = table[rows & (table.primary == primary)]
            if len(some):
                yield primary, what, some


def _table(table: pd.DataFrame) -> str:
    lines = [_row(HEAD), _row(["---"] * len(HEAD))]
    for row in table.to_dict("records"):
        texts = [row[name] for name in TEXTS]
        lines.append(
            _row(
                [
                    *map(plain, texts), plain(row["shift"]), f"{row['label_fraction']:g} %", plain(row["primary"]),
                    with_ends(row, "score_mean", "score", ".3f"),
                    with_ends(row, "delta_vs_supervised", "delta_vs_supervised", "+.3f"), number(row["p_holm"], ".3g"),
                    number(row["rank"], "g"), number(row["mean_rank"], ".2f"), plain(row["selection"]),
                    *(number(row[k], "g") for k in ("seeds", "images", "groups")), plain(row["key"]),
                ]
            )
        )  # fmt: skip
    return "\n".join(lines)


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def number(value: Any, form: str) -> str:
    """A number as tables show it; nothing where there is none."""
    return "" if value is None or math.isnan(value) else format(value, form)


def with_ends(row: Mapping[Any, Any], mean: str, ends: str, form: str) -> str:
    """A mean with its interval; the mean alone where there is none."""
    numbers = [number(row[name], form) for name in (mean, f"{ends}_low", f"{ends}_high")]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]" if all(numbers) else numbers[0]


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table as CSV, whole or not at all."""
    write_text("--csv", path, csv_text(table))


def write_markdown(table: pd.DataFrame, path: Path) -> None:
    """The table as Markdown, whole or not at all."""
    write_text("--md", path, markdown_text(table))


def check_place(flag: str, path: Path) -> None:
    """Refuse a place where no file can be written, as far as that shows without writing."""
    if path.is_dir():
        raise UsbenchError(f"{flag} {path} is a folder: name a file.")
    present = next(place for place in path.absolute().parents if place.exists())
    if not present.is_dir():
        raise UsbenchError(f"{flag} {path}: {present} is a file, and no folder; name another place.")
    if not os.access(present, os.W_OK | os.X_OK):
        raise UsbenchError(
            f"{flag} {path} cannot be written, as {present} is not yours to write in: name another file."
        )


def write_text(flag: str, path: Path, text: str) -> None:
    """A file that a flag names, whole or not at all."""
    check_place(flag, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written(path) as temporary:
            temporary.write_text(text, "utf-8")
    except OSError as error:
        raise UsbenchError(f"{path} cannot be written ({error.strerror}): name another file.") from None
