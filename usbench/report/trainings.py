"""A row a training: what became of it, so that why a result is what it is can be looked for in one table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from usbench.runs.stage import KINDS
from usbench.runs.store import Store

NAME = "trainings.csv"
WHICH = ("loss", "aug", "backbone", "init", "pretrain_data", "train_data", "label_fraction", "fold", "protocol", "seed")
FACTS = (
    "steps", "images", "images_seen", "selection", "chosen_step", "spread", "rankme", "load", "peak_mib",
    "device_seconds",
)  # fmt: skip


def trainings_table(store: Store, stage_ids: Iterable[str]) -> pd.DataFrame:
    """Every pretraining and fine-tune of these stages, in a fixed order: loss at the first and the last point of its
    curve, inner validation at the chosen and at the last step, and what its encoder's features are like."""
    rows = [_row(store, name) for name in dict.fromkeys(stage_ids) if not name.startswith("evaluate")]
    table = pd.DataFrame(
        rows, columns=["kind", "key", *WHICH, *FACTS, "inner", "inner_last", "loss_first", "loss_last"]
    )
    order = table.kind.map(KINDS.index)
    return table.assign(order=order).sort_values(["order", *WHICH, "key"]).drop(columns="order").reset_index(drop=True)


def _row(store: Store, name: str) -> dict[str, Any]:
    record = store.record(name)
    facts = record["facts"]
    kind, _, key = name.partition("-")
    inner = next((fact for fact in facts if fact.endswith("_inner")), None)
    row = {"kind": kind, "key": key, **{k: record["row"].get(k) for k in WHICH}, **{k: facts.get(k) for k in FACTS}}
    if inner is not None:
        row |= {"inner": facts[inner], "inner_last": facts.get(f"{inner}_last")}
    curve = store.folder(name) / "curve.csv"
    if curve.is_file():
        losses = pd.read_csv(curve).loss
        row |= {"loss_first": losses.iloc[0], "loss_last": losses.iloc[-1]} if len(losses) else {}
    return row
