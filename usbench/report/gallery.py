"""Cases for the page: for every row the best, median and worst image, with outlines of truth and prediction.

Rows of one test set share its images, so that any two of them can be laid side by side. The cases of the set are those
that are best, median and worst in the mean over its rows, and the one that they disagree on most; each row has its own
best, median and worst besides. Masks are those of the first seed. Corrupted images are left out: no pack holds them.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from usbench.data.pack import Pack
from usbench.errors import UsbenchError
from usbench.report.cells import Cell
from usbench.report.files import visible
from usbench.report.masks import MASKS, Masks
from usbench.report.outline import outline

SIDE = 144  # pixels of a picture on the page
QUALITY = 60
SHARED = ("best", "median", "worst", "most disputed")


@dataclass
class Group:
    """A test set as some rows were tested on it: the same images in the same order."""

    name: str
    pack: str  # digest
    names: np.ndarray
    rows: list[tuple[Cell, np.ndarray]] = field(default_factory=list)  # with the scores of its images


@dataclass
class Gallery:
    """What the page shows of cases, and what it has to say about them."""

    groups: list[dict[str, Any]]
    notes: list[str]


def gallery(every: Sequence[Cell], places: Mapping[str, Path], *, images: bool) -> Gallery:
    """Cases of every row that kept masks; pictures where they are wanted and their pack is here."""
    notes, without, shown = [], [], []
    for group in groups_of(every):
        pack = opened(places.get(group.pack))
        if pack is None:
            without.append(visible(group.name))
        if rows := whole(group):
            shown.append(_shown(group, rows, pack, images=images))
    if without:
        notes.append(f"The pack of {', '.join(dict.fromkeys(without))} is not installed where this page was made: "
                     "no picture and no truth there, predictions only.")  # fmt: skip
    if not images and shown:
        notes.append("Made without images: outlines only.")
    return Gallery(shown, notes)


def groups_of(every: Sequence[Cell]) -> list[Group]:
    """Test sets with the rows that kept masks of them, corrupted images aside."""
    found: dict[tuple[str, str, str], Group] = {}
    for cell in every:
        if cell.corrupted or not (cell.results[0].folder / MASKS).is_file():
            continue
        scores = cell.results[0].scores()
        if "name" not in scores or cell.primary not in scores:
            continue
        digest = str(cell.facts.get("pack") or "")
        key = str(cell.row["test_data"]), digest, json.dumps(scores["name"].tolist())
        group = found.setdefault(key, Group(key[0], digest, scores["name"].to_numpy()))
        if any(other.row["setting"] == cell.row["setting"] for other, _ in group.rows):
            continue  # the same trainings, in another table
        values = pd.to_numeric(scores[cell.primary], errors="coerce").to_numpy(float)
        # As the tables do, normal images are left out.
        group.rows.append((cell, np.where(scores.lesion, values, np.nan) if "lesion" in scores else values))
    return list(found.values())


def opened(path: Path | None) -> Pack | None:
    """A pack that can be read."""
    try:
        return Pack(path) if path is not None else None
    except UsbenchError:
        return None


def whole(group: Group) -> list[tuple[Cell, np.ndarray, Masks]]:
    """The rows whose masks can be read and that have a score at all."""
    rows = []
    for cell, values in group.rows:
        try:
            masks = Masks(cell.results[0].folder)
        except UsbenchError:  # a page is made of what can be read; 'usbench verify' names the rest
            continue
        if len(masks) == len(group.names) and not np.isnan(values).all():
            rows.append((cell, values, masks))
    return rows


def _shown(
    group: Group, rows: Sequence[tuple[Cell, np.ndarray, Masks]], pack: Pack | None, *, images: bool
) -> dict[str, Any]:
    shared = cases_of_all(np.stack([values for _, values, _ in rows]))
    own = [_cases_of_one(values) for _, values, _ in rows]
    listed = sorted({*shared, *(place for cases in own for place in cases)})
    number = {place: at for at, place in enumerate(listed)}
    made_rows = []
    for (cell, values, masks), cases in zip(rows, own, strict=True):
        wanted = list(dict.fromkeys([*shared, *cases]))
        drawn = {number[p]: outline(mask) for p, mask in zip(wanted, masks.of(wanted), strict=True)}
        scores = {number[p]: None if math.isnan(values[p]) else round(float(values[p]), 3) for p in wanted}
        made_rows.append({"key": str(cell.row["setting"]), "own": [number[p] for p in cases], "paths": drawn,
                          "scores": scores})  # fmt: skip
    return {
        "name": visible(group.name), "size": rows[0][2].size[0], "shared": [number[p] for p in shared],
        "cases": _pictures(group, listed, pack, images=images), "rows": made_rows,
    }  # fmt: skip


def cases_of_all(values: np.ndarray) -> list[int]:
    """The best, median and worst image in the mean over rows, and the one on which rows differ most."""
    known = ~np.isnan(values).all(axis=0)
    means = np.full(values.shape[1], np.nan)
    means[known] = np.nanmean(values[:, known], axis=0)
    spread = np.full(values.shape[1], -1.0)
    spread[known] = np.nanmax(values[:, known], axis=0) - np.nanmin(values[:, known], axis=0)
    cases = _cases_of_one(means)
    return [*cases, int(spread.argmax())] if len(values) > 1 else cases


def _cases_of_one(values: np.ndarray) -> list[int]:
    """The best, median and worst image; the first of equals."""
    ordered = [place for place in np.argsort(-values, kind="stable") if not math.isnan(values[place])]
    return [int(ordered[at]) for at in (0, len(ordered) // 2, -1)]


def _pictures(group: Group, listed: Sequence[int], pack: Pack | None, *, images: bool) -> list[dict[str, str]]:
    cases = [{"name": visible(group.names[place])} for place in listed]
    if pack is None:
        return cases
    rows = pd.Series(np.arange(pack.count), index=pack.table.name).reindex(group.names[list(listed)])
    known = [(at, int(row)) for at, row in enumerate(rows) if not math.isnan(row)]
    truths = pack.plane("mask", np.array([row for _, row in known], int))
    for (at, row), truth in zip(known, truths, strict=True):
        cases[at]["truth"] = outline(truth)
        if images:
            cases[at]["image"] = _data(pack.images[row])
    return cases


def _data(image: np.ndarray) -> str:
    """A small picture that needs no file."""
    side = min(SIDE, len(image))
    small = Image.fromarray(np.asarray(image)).resize((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(buffer.getvalue()).decode()
