"""The settings beside an exported network are those that made it, or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from usbench.data.pack import Pack
from usbench.hooks import registry
from usbench.runs.plan import make_plan
from usbench.runs.stage import Plan
from usbench.runs.store import Store
from usbench.share.origin import bare, spec_of
from usbench.spec import RunSpec, resolve

STEPS: dict[str, Any] = {"pretrain": {"steps": 4, "batch": 8}, "finetune": {"steps": 4, "batch": 4}}


def plans(settings: dict[str, Any], *changes: dict[str, Any]) -> list[Plan]:
    """The runs of a suite, none of them done."""
    changed = [{**settings, "loss": "simclr", "seeds": [0], **change} for change in changes]
    return [make_plan(registry(), resolve(each), lambda *_: None) for each in changed]


def kept(root: Path, runs: Sequence[Plan], *, trials: Sequence[Plan] = ()) -> Store:
    """A store that keeps a suite of these runs, and of one in which a trial is chosen."""
    specs = [plan.spec.model_dump(mode="json") for plan in (*runs, *trials[:1])]
    choice = {"spec": specs[-1], "over": {}, "trials": [plan.spec.model_dump(mode="json") for plan in trials]}
    stages = sorted({stage.id for plan in (*runs, *trials) for stage in plan.stages})
    (root / "suite-x").mkdir(parents=True)
    said = {"specs": specs, "choices": [choice] if trials else [], "stages": stages, "tests": []}
    (root / "suite-x" / "suite.json").write_text(json.dumps(said))
    return Store(root)


def networks(store: Store, every: list[Plan]) -> Iterator[Any]:
    """Every network of some runs, as it would be chosen to be exported."""
    stages = {stage.id: stage for plan in every for stage in plan.stages}
    records = {
        name: json.loads(json.dumps({"identity": stage.identity, "row": stage.row})) for name, stage in stages.items()
    }
    for name, record in records.items():
        if name.startswith("finetune-"):
            pretrained = records.get(f"pretrain-{record['identity']['pretrained']}")
            key = name.partition("-")[2]
            yield SimpleNamespace(store=store, key=key, record=record, pretrained=pretrained, tests=[])


def makers(trained: Any, every: list[Plan]) -> list[RunSpec]:
    """The settings that make a network, as an export would write them."""
    found = [plan.spec for plan in every if any(stage.id == f"finetune-{trained.key}" for stage in plan.stages)]
    fields = ("data", "ood", "pretrain_data", "split")
    named = [{field: tuple(bare(field, text) for text in getattr(spec, field)) for field in fields} for spec in found]
    return [spec.model_copy(update=update) for spec, update in zip(found, named, strict=True)]


def test_the_settings_of_a_network_out_of_a_suite_make_that_network(
    tiny_settings: dict[str, Any], tiny_target: Path, make_scans: Callable[..., Any], make_pack: Callable[..., Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    settings = {**tiny_settings, **STEPS, "labels": [100]}
    items = [replace(item, device="new" if int(item.patient[1:]) % 3 else "old") for item in make_scans(20, seed=7)]
    second = str(make_pack(tmp_path / "second.h5", items, name="second"))
    mine, ours = tiny_settings["data"], [str(tiny_target), *tiny_settings["data"]]
    rates = [{"fold": k, "finetune": {**STEPS["finetune"], "lr": lr}} for k in (0, 1) for lr in (1e-3, 3e-3)]
    others: list[dict[str, Any]] = [
        {"pretrain": {**STEPS["pretrain"], "lr": 3e-3}}, {"pretrain": {**STEPS["pretrain"], "steps": 6}},
        {"aug": "none"}, {"loss": "barlow-twins"}, {"loss": "simclr:temperature=0.2"}, {"seeds": [1, 2]},
        {"labels": [25, 50]}, {"size": 64}, {"backbone": "unet:resnet18,width=32"}, {"protocol": "segment-frozen"},
        {"protocol": "probe"}, {"data": [second]}, {"data": [second], "leave_device": "old"}, {"data": ours, "ood": []},
        {"data": ours[:1], "ood": mine}, {"ood": [], "pretrain_data": ours}, {"threads": 2}, {"precision": "bf16"},
        {"ood": [], "pretrain_data": ours, "pretrain_part": "train"},
    ]  # fmt: skip
    every = plans(settings, *rates, *others)
    store = kept(tmp_path / "store", every)
    found = [(trained, spec_of(trained)) for trained in networks(store, every)]
    assert len(found) > 40
    for trained, spec in found:
        assert spec in makers(trained, every), (trained.record, spec)


def test_the_settings_of_a_chosen_trial_are_the_trials(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    trials = plans(tiny_settings, *({"finetune": {**STEPS["finetune"], "lr": lr}} for lr in (1e-3, 3e-3)))
    store = kept(tmp_path, [], trials=trials)
    for trained in networks(store, trials):
        spec = spec_of(trained)
        assert spec is not None and spec.finetune.lr == trained.record["identity"]["schedule"]["lr"]


def test_a_baseline_is_made_again_by_its_own_run_where_there_is_one(
    tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    every = plans(tiny_settings, {}, {"loss": "none"})
    for trained in networks(kept(tmp_path, every), every):
        spec, own = spec_of(trained), trained.record["row"]["loss"]
        assert spec is not None and (spec.loss == own or own == "none-long")


def test_of_runs_that_only_their_data_tell_apart_the_plan_decides_or_nobody(
    tiny_settings: dict[str, Any], tiny_pack: Path, tmp_path: Path
) -> None:
    names = Pack(tiny_pack).table.name.to_numpy()
    patients = np.array([name.partition("-")[0] for name in names])
    files = []
    for place, tested in enumerate((("p000", "p001", "p004"), ("p002", "p003", "p009"))):
        files.append(tmp_path / f"{place}.json")
        files[-1].write_text(json.dumps(names[np.isin(patients, tested)].tolist()))
    every = plans(tiny_settings, *({"split": [f"discs={file}"]} for file in files))
    store = kept(tmp_path / "store", every)
    for trained in networks(store, every):
        assert spec_of(trained) in makers(trained, every)
    for file in files:
        file.unlink()
    assert {spec_of(trained) for trained in networks(store, every)} == {None}


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("data", "/home/me/x.h5", "x.h5"), ("data", "../private/x.h5", "x.h5"), ("data", "~/x.h5", "x.h5"),
        ("ood", "private/x.v2.h5", "x.v2.h5"), ("pretrain_data", r"C:\me\x.h5", "x.h5"), ("data", "busi", "busi"),
        ("data", "phantom:l7,patients=3", "phantom:l7,patients=3"), ("split", "busi=/home/me/x.json", "busi=x.json"),
        ("split", "busi=../x.json", "busi=x.json"), ("split", "private/x.json", "x.json"),
        ("split", "/home/a=b/x.json", "x.json"), ("split", "x.json", "x.json"), ("init", "imagenet", "imagenet"),
        ("init", "runs/a/x.safetensors", "x.safetensors"), ("loss", "moco:queue=512", "moco:queue=512"),
        ("backbone", "unet:NAME/of.one,widths=8/16", "unet:NAME/of.one,widths=8/16"),
        ("about", "see https://example.org/a/b", "see https://example.org/a/b"), ("packs", "/home/me/x.h5", "x.h5"),
    ],
)  # fmt: skip
def test_a_setting_that_travels_names_no_place(field: str, text: str, expected: str) -> None:
    assert bare(field, text) == expected


def test_a_spec_that_cannot_be_read_is_passed_over(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    every = plans(tiny_settings, {}, {"fold": 1})
    store = kept(tmp_path, every)
    path = tmp_path / "suite-x" / "suite.json"
    said = json.loads(path.read_text())
    said["specs"][0]["size"] = "x"
    path.write_text(json.dumps(said))
    found = {trained.record["row"]["fold"]: spec_of(trained) for trained in networks(store, every)}
    assert found["0"] is None and found["1"] is not None and found["1"].fold == 1
