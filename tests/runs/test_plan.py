"""A key changes with all that changes a result, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from usbench.errors import UsbenchError
from usbench.hooks import Registry
from usbench.runs.plan import make_plan
from usbench.runs.stage import Plan
from usbench.spec import resolve


def plan_of(registry: Registry, settings: dict[str, Any], **changes: Any) -> Plan:
    return make_plan(registry, resolve({"loss": "simclr", "seeds": [0], **settings, **changes}), lambda *_: None)


def keys(plan: Plan, kind: str, loss: str = "simclr") -> set[str]:
    return {stage.key for stage in plan.stages if stage.kind == kind and stage.row["loss"].startswith(loss)}


CHANGES: dict[str, dict[str, Any]] = {
    "loss option": {"loss": "simclr:temperature=0.2"},
    "loss": {"loss": "byol"},
    "augmentation": {"aug": "freq"},
    "augmentation option": {"aug": "spatial:degrees=5"},
    "backbone": {"backbone": "unet-resnet18"},
    "size": {"size": 64},
    "seed": {"seeds": [1]},
    "fold": {"fold": 1},
    "precision": {"precision": "bf16"},
    "threads": {"threads": 2},
    "steps": {"pretrain": {"steps": 5, "batch": 8}},
    "learning rate": {"pretrain": {"steps": 4, "batch": 8, "lr": 1e-2}},
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_key_of_a_pretraining_changes_with(what: str, installed: Registry, tiny_settings: dict[str, Any]) -> None:
    change = CHANGES[what]
    loss = change.get("loss", "simclr").partition(":")[0]
    assert keys(plan_of(installed, tiny_settings), "pretrain") != keys(
        plan_of(installed, tiny_settings, **change), "pretrain", loss
    )


@pytest.mark.parametrize(
    "change", [{"labels": [100]}, {"ood": []}, {"finetune": {"steps": 9, "batch": 4}}], ids=lambda c: next(iter(c))
)
def test_the_key_of_a_pretraining_does_not_change_with_what_comes_after(
    change: dict[str, Any], installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    assert keys(plan_of(installed, tiny_settings), "pretrain") == keys(
        plan_of(installed, tiny_settings, **change), "pretrain"
    )


def test_all_label_fractions_of_a_seed_share_one_pretraining(
    installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    plan = plan_of(installed, tiny_settings, labels=[20, 50, 100], seeds=[0, 1])
    assert len(keys(plan, "pretrain")) == 2
    assert len(keys(plan, "finetune")) == 6


def test_a_baseline_is_the_same_stage_whatever_it_stands_beside(
    installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    first, second = (plan_of(installed, tiny_settings, loss=loss) for loss in ("simclr", "vicreg"))
    assert keys(first, "finetune", "none") == keys(second, "finetune", "none")


def test_the_long_baseline_takes_the_steps_of_pretraining_too(
    installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    plan = plan_of(installed, tiny_settings)
    steps = {(s.row["loss"], s.steps) for s in plan.stages if s.kind == "finetune"}
    assert steps == {("simclr", 4), ("none", 4), ("none-long", 8)}


def test_an_edited_loose_file_gets_a_new_key(tmp_path: Path, tiny_settings: dict[str, Any]) -> None:
    source = (
        "from usbench import Loss, hookimpl\n"
        "class Mine(Loss):\n    def objective(self, out, batch): return out.features[0].mean()\n"
        "@hookimpl\ndef usbench_losses(register): register('mine', Mine, summary='mine')\n"
    )
    found = []
    for text in (source, source.replace("mean()", "std()")):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        (folder / "mine.py").write_text(text)
        registry = Registry()
        registry.load_entry_points()
        registry.load_folder(folder)
        found.append(keys(plan_of(registry, tiny_settings, loss="mine"), "pretrain", "mine"))
    assert found[0] != found[1]


def test_a_row_is_the_same_however_its_options_are_typed(installed: Registry, tiny_settings: dict[str, Any]) -> None:
    found = [
        {s.row["setting"] for s in plan_of(installed, tiny_settings, loss=loss).stages if s.kind == "evaluate"}
        for loss in ("simclr", "simclr:temperature=0.1", "simclr:temperature=0.2")
    ]
    assert found[0] == found[1] != found[2]


def test_the_target_domain_is_never_trained_on(installed: Registry, tiny_settings: dict[str, Any]) -> None:
    with pytest.raises(UsbenchError, match="never trained on"):
        plan_of(installed, tiny_settings, ood=tiny_settings["data"])


def test_a_loss_whose_needs_the_data_lacks_is_refused_with_what_would_fit(
    installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    installed._entries["loss"]["needy"] = replace(installed.get("loss", "simclr"), name="needy", needs=("depth",))
    with pytest.raises(UsbenchError, match=r"needs depth.*what fits: awcl, barlow-twins, .* and \d+ more\."):
        plan_of(installed, tiny_settings, loss="needy")


def test_a_loss_whose_needs_the_backbone_lacks_is_refused_with_the_backbones_that_fit(
    installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    with pytest.raises(UsbenchError) as refused:
        plan_of(installed, tiny_settings, loss="mae")
    assert str(refused.value) == (
        "loss 'mae' needs tokens, which backbone 'unet-tiny' does not give; what fits: vit-small, vit-tiny."
    )
    assert plan_of(installed, tiny_settings, loss="mae", backbone="vit-tiny").stages
    both = replace(installed.get("loss", "simclr"), name="both", needs=("tokens", "depth"))
    installed._entries["loss"]["both"] = both
    with pytest.raises(UsbenchError, match=r"'both' needs depth, which 'discs' does not have; what fits: awcl"):
        plan_of(installed, tiny_settings, loss="both", backbone="vit-tiny")


def test_planning_needs_no_weights_and_says_what_a_run_will_do(
    installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    plan = plan_of(installed, tiny_settings)
    kinds = [stage.kind for stage in plan.stages]
    assert (kinds.count("pretrain"), kinds.count("finetune"), kinds.count("evaluate")) == (1, 6, 12)
    done: set[str] = set()
    for stage in plan.stages:
        assert set(stage.needs) <= done
        done.add(stage.id)


def test_fractions_that_pick_the_same_images_are_still_rows_of_their_own(
    installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    plan = plan_of(installed, tiny_settings, labels=[1, 2, 100], ood=[])
    assert len(keys(plan, "finetune")) == 2  # 1 % and 2 % are the same group, trained once
    assert len(keys(plan, "evaluate")) == 3


def test_a_pack_in_the_data_home_is_found_by_its_name(installed: Registry, tiny_settings: dict[str, Any]) -> None:
    assert plan_of(installed, tiny_settings, data=["discs"]).key == plan_of(installed, tiny_settings).key
