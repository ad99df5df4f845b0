"""The spec: defaults, refusals, keys, and a config that says the same again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from usbench.errors import UsbenchError
from usbench.hooks import Registry
from usbench.machine import resolve_precision
from usbench.runs.plan import make_plan
from usbench.spec import Choice, config_text, key_of, presets, read_config, resolve


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("rcl", Choice(name="rcl")),
        ("phantom:l7", Choice(name="phantom", positional="l7")),
        ("phantom:l7,size=64", Choice(name="phantom", positional="l7", options={"size": "64"})),
        ("simclr:temperature=0.2", Choice(name="simclr", options={"temperature": "0.2"})),
    ],
)
def test_a_choice_is_read_and_written_in_the_same_form(text: str, choice: Choice) -> None:
    assert Choice.parse(text) == choice
    assert str(choice) == text


@pytest.mark.parametrize("text", ["", ":a=1", "rcl:a=1,b"])
def test_a_choice_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsbenchError):
        Choice.parse(text)


@pytest.mark.parametrize("name", list(presets()))
def test_every_preset_is_complete_but_for_the_loss(name: str) -> None:
    assert resolve({"loss": "none", "preset": name}).preset == name


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError):
        resolve({"loss": "none"}).size = 32


def test_what_is_given_wins_over_the_preset_and_the_rest_of_a_schedule_stays() -> None:
    spec, preset = resolve({"loss": "none", "pretrain": {"steps": 7}}), presets()["quick"]
    assert spec.pretrain.steps == 7
    assert spec.pretrain.batch == preset["pretrain"]["batch"] and spec.finetune.steps == preset["finetune"]["steps"]


def test_a_plugin_stands_in_a_spec_as_it_stands_in_rows() -> None:
    given = {"loss": " simclr: temperature=0.1,", "backbone": "unet-tiny:", "protocol": "segment: "}
    spec = resolve(given)
    assert (spec.loss, spec.backbone, spec.protocol) == ("simclr:temperature=0.1", "unet-tiny", "segment")


def test_the_presets_targets_belong_to_the_presets_data() -> None:
    assert resolve({"loss": "none"}).ood
    assert resolve({"loss": "none", "data": ["mine.h5"]}).ood == ()


def test_fractions_and_seeds_are_put_in_order_once() -> None:
    spec = resolve({"loss": "none", "labels": [100, 20, 20], "seeds": [2, 0, 2]})
    assert spec.labels == (20.0, 100.0) and spec.seeds == (2, 0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"labels": [0]}, "above 0 and up to 100, not 0"),
        ({"labels": [101]}, "above 0 and up to 100, not 101"),
        ({"seeds": []}, "at least one"),
        ({"seeds": [-1]}, "whole numbers from 0"),
        ({"size": 8}, "size"),
        ({"device": "tpu"}, "auto, cpu or cuda, not 'tpu'"),
        ({"precision": "int8"}, "auto, bf16 or float32"),
        ({"preset": "quik"}, "did you mean 'quick'"),
        ({"bakbone": "unet"}, "did you mean 'backbone'"),
        ({"pretrain": {"step": 3}}, "did you mean 'steps'"),
        ({"pretrain": {"steps": 0}}, "pretrain.steps"),
        ({"pretrain": {"batch": 1}}, "pretrain.batch"),
        ({"pretrain": 5}, "pretrain"),
        ({"finetune": {"lr": "fast"}}, "finetune.lr"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(given: dict, words: str) -> None:
    with pytest.raises(UsbenchError) as refusal:
        resolve({"loss": "none", **given})
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(UsbenchError, match="'loss' is not set"):
        resolve({})


def test_a_saved_config_gives_the_same_spec(tmp_path: Path) -> None:
    given = {"loss": "simclr:projection=64,temperature=0.2", "data": ['a "b".h5'], "labels": [12.5]}
    spec = resolve({**given, "finetune": {"lr": 3e-5}})
    (tmp_path / "run.toml").write_text(config_text(spec), "utf-8")
    assert resolve(read_config(tmp_path / "run.toml")) == spec


def test_a_key_depends_on_the_content_and_not_on_the_order() -> None:
    assert key_of({"a": 1, "b": [1.5, "x"]}) == key_of({"b": [1.5, "x"], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})


def test_the_gpu_computes_in_bf16_and_a_wish_is_kept() -> None:
    assert resolve_precision("auto", "cuda") == "bf16"
    assert resolve_precision("float32", "cuda") == "float32"


def keys(installed: Registry, settings: dict[str, Any], kind: str, **changed: Any) -> set[str]:
    """The keys of a plan's stages of one kind."""
    given = {"loss": "simclr", **settings, "labels": [50], **changed}
    plan = make_plan(installed, resolve(given), lambda what, done, total: None)
    return {stage.key for stage in plan.stages if stage.kind == kind}


def test_equal_specs_have_equal_keys_and_all_fractions_share_a_pretraining(
    installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    assert keys(installed, tiny_settings, "evaluate") == keys(installed, tiny_settings, "evaluate")
    one = keys(installed, tiny_settings, "pretrain")
    assert len(one) == 1
    assert one == keys(installed, tiny_settings, "pretrain", labels=[20, 50, 100])
    assert one == keys(installed, tiny_settings, "pretrain", finetune={"steps": 9, "batch": 4})


@pytest.mark.parametrize(
    "changed",
    [
        {"loss": "simclr:temperature=0.2"},
        {"loss": "vicreg"},
        {"aug": "freq"},
        {"size": 64},
        {"seeds": [1]},
        {"fold": 1},
        {"precision": "bf16"},
        {"threads": 2},
        {"pretrain": {"steps": 5, "batch": 8}},
        {"pretrain": {"steps": 4, "batch": 16}},
    ],
)
def test_whatever_changes_a_pretraining_changes_its_key(
    installed: Registry, tiny_settings: dict[str, Any], changed: dict[str, Any]
) -> None:
    before, after = (keys(installed, tiny_settings, "pretrain", **c) for c in ({}, changed))
    assert not before & after


def test_a_default_written_out_is_the_same_run(installed: Registry, tiny_settings: dict[str, Any]) -> None:
    plain = keys(installed, tiny_settings, "pretrain")
    assert plain == keys(installed, tiny_settings, "pretrain", loss="simclr:temperature=0.1")


def test_every_run_has_its_supervised_baselines(installed: Registry, tiny_settings: dict[str, Any]) -> None:
    plan = make_plan(installed, resolve({"loss": "simclr", **tiny_settings}), lambda what, done, total: None)
    assert {stage.row["baseline"] for stage in plan.stages} == {"", "plain", "long"}
    assert [name for name in plan.missing if "weights" in name] == [
        "none with ImageNet weights: run it with --loss none --init imagenet"
    ]


def test_a_run_from_a_file_names_the_baselines_of_other_starts(
    installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    spec = resolve({"loss": "none", **tiny_settings, "init": str(tmp_path / "mine.safetensors")})
    missing = make_plan(installed, spec, lambda what, done, total: None).missing
    assert [name.partition(" weights")[0] for name in missing] == ["none with random", "none with ImageNet"]


def test_edited_source_of_a_loose_loss_is_a_new_pretraining(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    text = "from usbench import hookimpl\n@hookimpl\ndef usbench_losses(register):\n"
    found = []
    for folder, end in (("a", ""), ("b", "# edited\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text + "    register('mine', 'x:Y', summary='s')\n" + end)
        registry = Registry()
        registry.load_entry_points()
        registry.load_folder(tmp_path / folder)
        found.append(keys(registry, tiny_settings, "pretrain", loss="mine"))
    assert not found[0] & found[1]
