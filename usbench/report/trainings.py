"""A row a training: what became of it, so that why a result is what it is can be looked for in one table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
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
INNER, LOSSES = ("inner", "inner_last"), ("loss_first", "loss_last")


def trainings_table(store: Store, stage_ids: Iterable[str]) -> pd.DataFrame:
    """Every pretraining and fine-tune of these stages, in a fixed order: loss at the first and the last point of its
    curve, inner validation at the chosen and at the last step, and what its encoder's features are like. Where several
    are one row and seed, `trial` says how they differ."""
    records = {name: store.record(name) for name in dict.fromkeys(stage_ids) if not name.startswith("evaluate")}
    trials = _trials(records)
    rows = [{**_row(store, name, record), "trial": trials.get(name)} for name, record in records.items()]
    columns = ["kind", "key", *WHICH, *(["trial"] if trials else []), *FACTS, *INNER, *LOSSES]
    table = pd.DataFrame(rows, columns=columns)
    order = table.kind.map(KINDS.index)
    return table.assign(order=order).sort_values(["order", *WHICH, "key"]).drop(columns="order").reset_index(drop=True)


def _trials(records: Mapping[str, Any]) -> dict[str, str]:
    """In what each training's settings are other than those of the rest of its row and seed, such as
    `finetune.encoder_factor=0.1`."""
    alike: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = defaultdict(dict)
    for name, record in records.items():
        kind, identity = name.partition("-")[0], record["identity"]
        settings = {f"{kind}.{setting}": value for setting, value in identity.get("schedule", {}).items()}
        which = (kind, *(str(record["row"].get(column)) for column in WHICH))
        alike[which][name] = settings | {fact: identity.get(fact) for fact in ("size", "pretrained")}
    found = {}
    for trials in alike.values():
        known = dict.fromkeys(setting for settings in trials.values() for setting in settings)
        differing = [each for each in known if len({str(settings.get(each)) for settings in trials.values()}) > 1]
        for name, settings in trials.items():
            found[name] = ", ".join(f"{setting}={settings.get(setting)}" for setting in differing)
    return {name: said for name, said in found.items() if said}


def _row(store: Store, name: str, record: Mapping[str, Any]) -> dict[str, Any]:
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
