"""The page's tables: the blocks, rows, columns and marks of the Markdown leaderboard, ready to be laid out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from usbench.report.cells import Cell
from usbench.report.files import blocks, number, visible, with_ends
from usbench.report.table import title_of

TEXTS = {
    "loss": "loss", "aug": "aug", "backbone": "backbone", "init": "init", "protocol": "protocol",
    "pretrain_data": "pretrained on", "pretrain_labels": "pretrain labels", "train_data": "trained on",
    "test_data": "tested on", "shift": "shift",
}  # fmt: skip
NUMBERS = {"seeds": "seeds", "images": "images", "groups": "groups"}
ALWAYS = {"loss", "test_data"}  # shown though all rows have the same; other such columns stand in the caption
FILTERS = {
    "test_data": "Tested on", "label_fraction": "Labels", "shift": "Shift", "train_data": "Trained on",
    "pretrain_labels": "Pretrain labels", "network": "Network", "block": "Table",
}  # fmt: skip
SURE = 0.05  # the level of a test
LONG = 30  # a text that may be broken over several lines
HALF, MIDDLE = 44.0, 46.0  # of a small picture of an interval


@dataclass
class Shown:
    """One cell: what stands there, and what it sorts by where that is a number."""

    text: str
    value: float | None = None
    kind: str = ""
    picture: str = ""


@dataclass
class Line:
    """One row: its cells by column, its marks, and its place in the page's data."""

    place: int
    cells: dict[str, Shown]
    key: str
    baseline: bool
    reconstruction: bool
    filters: list[int] = field(default_factory=list)


@dataclass
class Table:
    """One block: its heading, what all its rows share, its columns by name, and its rows."""

    title: str
    shared: list[tuple[str, str]]
    columns: dict[str, str]
    lines: list[Line]


def tables_of(table: pd.DataFrame, every: Sequence[Cell]) -> tuple[list[Table], dict[str, list[str]]]:
    """Every block as the Markdown leaderboard has it, and what rows can be filtered by."""
    baselines = {str(cell.row["setting"]): bool(cell.row["baseline"]) for cell in every}
    made: list[Table] = []
    values: dict[str, dict[str, int]] = {name: {} for name in FILTERS}
    for primary, what, some in blocks(table):
        title = f"{visible(title_of(primary))}{f', {what}' if what else ''}"
        made.append(_table(title, some, baselines))
        for line, row in zip(made[-1].lines, some.to_dict("records"), strict=True):
            for name, known in values.items():
                value = title if name == "block" else _filtered(row, name)
                line.filters.append(known.setdefault(value, len(known)))
    return made, {name: list(known) for name, known in values.items()}


def _filtered(row: Mapping[Any, Any], name: str) -> str:
    if name == "network":
        return visible(f"{row['backbone']} · {row['init']}")
    return f"{row[name]:g} %" if name == "label_fraction" else visible(row[name])


def _table(title: str, some: pd.DataFrame, baselines: Mapping[str, bool]) -> Table:
    lowest, highest = some[["delta_vs_supervised_low", "delta_vs_supervised_high"]].to_numpy(float).T
    ends = np.abs(np.r_[lowest, highest])
    ends = ends[~np.isnan(ends)]
    # One wild interval must not press all others together: it is cut at the edge.
    reach = float(np.quantile(ends, 0.95)) * 1.05 if ends.size else 0.0
    rows = some.to_dict("records")
    lines = [
        Line(
            place=int(index), cells=_cells(row, reach), key=visible(str(row["key"])[:8]),
            baseline=baselines.get(str(row["key"]), False), reconstruction=bool(row["reconstruction"] is True),
        )
        for index, row in zip(some.index, rows, strict=True)
    ]  # fmt: skip
    columns = {
        **TEXTS, "label_fraction": "labels", "primary": "metric", "score": "mean [95 %]",
        "delta": "difference [95 %]", "p_holm": "p (Holm)", "rank": "rank", "mean_rank": "mean rank", **NUMBERS,
    }  # fmt: skip
    shared = []
    for name in list(columns):
        texts = {line.cells[name].text for line in lines}
        if name == "pretrain_data" and len(texts) > 1:
            texts.discard("none")  # of a baseline goes without saying
        if texts == {""} or (len(texts) == 1 and name not in ALWAYS and (name in TEXTS or name in NUMBERS)):
            shared += [(columns[name], text) for text in texts if text]
            del columns[name]
    # The metric is the heading.
    columns.pop("primary", None)
    return Table(title, shared, columns, lines)


def _cells(row: Mapping[Any, Any], reach: float) -> dict[str, Shown]:
    texts = {name: visible(row[name]) for name in TEXTS}
    cells = {name: Shown(text, kind="long" if len(text) > LONG else "") for name, text in texts.items()}
    cells["primary"] = Shown(visible(row["primary"]))
    cells["label_fraction"] = Shown(f"{row['label_fraction']:g} %", float(row["label_fraction"]), "n")
    cells["score"] = Shown(with_ends(row, "score_mean", "score", ".3f"), _known(row["score_mean"]), "n")
    delta = [float(row[f"delta_vs_supervised{end}"]) for end in ("", "_low", "_high")]
    text = with_ends(row, "delta_vs_supervised", "delta_vs_supervised", "+.3f")
    cells["delta"] = Shown(text, _known(delta[0]), "n", _interval_picture(delta, reach, sure=row["p_holm"] < SURE))
    for name, form in (("p_holm", ".3g"), ("rank", "g"), ("mean_rank", ".2f")):
        cells[name] = Shown(number(row[name], form), _known(row[name]), "n")
    for name in NUMBERS:
        cells[name] = Shown(number(row[name], "g"), _known(row[name]), "n")
    return cells


def _known(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _interval_picture(estimate: Sequence[float], reach: float, *, sure: bool) -> str:
    """The interval as a line around its mean, with a rule at no difference; `reach` is at either edge."""
    if any(map(math.isnan, estimate)) or not reach:
        return ""
    mean, low, high = (MIDDLE + HALF * max(-1.0, min(1.0, value / reach)) for value in estimate)
    return Markup(
        '<svg class="{}" viewBox="0 0 92 14" aria-hidden="true"><path d="M46 0v14"/>'
        '<path d="M{:.1f} 7H{:.1f}"/><circle cx="{:.1f}" cy="7" r="2.6"/></svg>'
    ).format("fp sure" if sure else "fp", low, high, mean)
