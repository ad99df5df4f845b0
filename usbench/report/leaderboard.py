"""The leaderboard: every aggregate is made from the per-image scores of finished stages, and can be made again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from usbench.evaluate.statistics import Estimate, holm
from usbench.report.cells import Cell, cells
from usbench.report.columns import COLUMNS, DISTANCES, columns
from usbench.report.differences import difference
from usbench.report.families import mean_rank_of
from usbench.report.folds import pooled_folds
from usbench.report.ranks import Block, rank_blocks
from usbench.report.results import chosen_by_test


def board_of(every: Sequence[Cell]) -> pd.DataFrame:
    """The table, and below it, each ranked and tested by itself: the folds of each method as one row, and what test
    sets themselves chose, where it is kept."""
    peeked = [twin for cell in every for result in cell.results if (twin := chosen_by_test(result))]
    by_test = cells(peeked, every[0].memo) if peeked else []
    tables = [table_of(rows) for rows in (pooled_folds(every), by_test, pooled_folds(by_test)) if rows]
    return pd.concat([table_of(every), *tables], ignore_index=True) if tables else table_of(every)


def table_of(every: Sequence[Cell]) -> pd.DataFrame:
    """The table: every number from per-image scores."""
    if not every:
        return pd.DataFrame(columns=list(COLUMNS))
    blocks, ranks = rank_blocks(every), mean_rank_of(every)
    table = pd.DataFrame([_line(cell, blocks[id(cell)]) for cell in every])
    table["mean_rank"] = [ranks.get(id(cell), math.nan) for cell in every]
    table["p_holm"] = adjusted(every)
    table["drop_from_in"] = drops(every)
    named = list(columns(metric for cell in every for metric in cell.metrics))
    return table.reindex(columns=named)


def adjusted(every: Sequence[Cell]) -> np.ndarray:
    """Holm's p of each difference to the baseline. Corrupted copies of a test set are a family of their own."""
    p = np.array([difference(cell, cell.base).p for cell in every])
    apart = np.array([cell.corrupted for cell in every], bool)
    for rows in (apart, ~apart):
        p[rows] = holm(p[rows])
    return p


def drops(every: Sequence[Cell]) -> list[float]:
    """What each row out of distribution loses to its own networks in distribution; NaN where nobody knows.

    Seeds are those of the row, and several in-distribution sets count by their images; one of none that counts, as
    without a lesion, tells nothing.
    """
    inside: dict[tuple[int, str], list[Cell]] = {}
    for cell in every:
        for result in cell.results if cell.row["shift"] == "in" else ():
            inside.setdefault((int(result.row["seed"]), result.finetuned), []).append(cell)
    found = []
    for cell in every:
        at_home = inside.get((cell.seeds[0], cell.results[0].finetuned), [])
        at_home = [o for o in at_home if set(cell.seeds) <= set(o.seeds) and o.counts()["images"]]
        if cell.row["shift"] == "in" or not at_home:
            found.append(math.nan)
            continue
        means, weights = zip(
            *((other.mean_over(cell.seeds), other.counts()["images"]) for other in at_home), strict=True
        )
        found.append(float(np.average(means, weights=weights)) - cell.interval().mean)
    return found


def _line(cell: Cell, block: Block) -> dict[str, Any]:
    row, facts = cell.row, [r.facts for r in cell.results]
    line: dict[str, Any] = {name: row[name] for name in COLUMNS if name in row}
    line |= {
        "suite": row.get("suite", ""),
        "chosen": row.get("chosen", ""),
        "key": row["setting"],
        "primary": cell.primary,
    }
    line |= _parts("score", cell.interval(), "_mean") | _parts("video_score", cell.video_interval(), "_mean")
    for metric in cell.metrics:
        line |= _parts(metric, cell.interval(metric), "_mean")
    for metric in DISTANCES:
        if metric in cell.metrics:
            line |= _parts(f"{metric}_mm", cell.interval(f"{metric}_mm"), "_mean")
    line |= _parts("delta_vs_supervised", difference(cell, cell.base))
    line |= _parts("delta_vs_best", difference(cell, block.best_beside(cell)))
    counts = cell.counts()
    line |= {name: counts[name] for name in ("no_distance", "normal_fp_rate", "normal_fp_area", "ece")}
    line |= {
        "images": int(counts["images"]), "groups": int(counts["groups"]), "seeds": len(facts),
        "rank": block.rank(cell), "pretrain_labels": cell.labels,
        "selection": "/".join(sorted({str(f.get("selection") or "") for f in facts})),
        "score_inner": _mean([f.get(f"{cell.primary}_inner") for f in facts]),
        **{k: _mean([f.get(k) for f in facts]) for k in ("dice_inner", "device_seconds")},
        "peak_mib": max((f["peak_mib"] for f in facts if f.get("peak_mib") is not None), default=math.nan),
        **{k: facts[0].get(k) for k in ("steps", "images_seen", "pixels_seen")},
    }  # fmt: skip
    return line


def _parts(name: str, estimate: Estimate, of_mean: str = "") -> dict[str, float]:
    return {f"{name}{of_mean}": estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _mean(values: Sequence[float | None]) -> float:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else math.nan
