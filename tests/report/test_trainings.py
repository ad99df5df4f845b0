"""The table of trainings says of each what became of it, and needs nothing but records and curves."""

from __future__ import annotations

import json
import shutil
from typing import Any

from made_up import put

from usbench.report.trainings import trainings_table
from usbench.runs.store import Store


def test_it_has_a_row_a_training_and_the_ends_of_its_curve(store: Store) -> None:
    for loss in ("rcl", "none"):
        put(store, loss, 0, 0.0, facts={"dice_inner": 0.5, "dice_inner_last": 0.4, "spread": 0.3, "rankme": 9.5})
    records = {
        json.loads(path.read_text())["row"]["loss"]: path for path in store.stages.glob("pretrain-*/record.json")
    }
    shutil.rmtree(records["none"].parent)  # nobody pretrains it
    source = records["rcl"]
    source.write_text(json.dumps({**json.loads(source.read_text()), "facts": {"steps": 4, "spread": 0.3}}))
    (source.parent / "curve.csv").write_text("step,lr,loss\n1,0.1,4.5\n2,0.1,2.25\n")
    every = sorted(folder.name for folder in store.stages.iterdir())
    table = trainings_table(store, [*every, *every])
    assert table.kind.to_list() == ["pretrain", "finetune", "finetune"]
    assert table.loss.to_list() == ["rcl", "none", "rcl"]
    first = table.iloc[0]
    assert (first.loss_first, first.loss_last, first.spread) == (4.5, 2.25, 0.3)
    assert table.inner.to_list()[1:] == [0.5, 0.5] and table.inner_last.to_list()[1:] == [0.4, 0.4]
    assert table[["inner", "inner_last", "rankme"]].iloc[0].isna().all()
    assert set(table.kind + "-" + table.key) == {name for name in every if not name.startswith("evaluate")}


def told_apart(store: Store, **settings: dict[str, Any]) -> dict[str, str]:
    """What is said of trainings of one row and seed, by key."""
    for key, identity in settings.items():
        folder = store.stages / f"finetune-{key}"
        folder.mkdir(parents=True)
        record = {"row": {"loss": "rcl", "seed": 0}, "facts": {}, "identity": identity}
        (folder / "record.json").write_text(json.dumps(record))
    table = trainings_table(store, [f"finetune-{key}" for key in settings])
    return dict(zip(table.key, table.trial, strict=True)) if "trial" in table else {}


def test_trials_of_one_row_and_seed_say_how_they_differ(store: Store) -> None:
    plain = {"schedule": {"lr": 0.001, "encoder_factor": 1.0}, "pretrained": "p", "size": 96}
    slow = {**plain, "schedule": {"lr": 0.001, "encoder_factor": 0.1}}
    said = {"a": "finetune.encoder_factor=1.0, pretrained=p", "b": "finetune.encoder_factor=0.1, pretrained=p"}
    assert told_apart(store, a=plain, b=slow, c={**plain, "pretrained": "q"}) == {
        **said, "c": "finetune.encoder_factor=1.0, pretrained=q",
    }  # fmt: skip


def test_trainings_that_differ_in_no_setting_have_no_column_for_it(store: Store) -> None:
    assert told_apart(store, a={"schedule": {"lr": 0.1}}, b={"schedule": {"lr": 0.1}}) == {}


def test_without_trainings_it_is_empty(store: Store) -> None:
    assert trainings_table(store, ["evaluate-a"]).empty
