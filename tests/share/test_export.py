"""An export is loaded by its own card's lines, and refused in a sentence where it lies."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file

import usbench as api
from usbench.data.pack import Pack
from usbench.errors import UsbenchError
from usbench.hooks import registry
from usbench.report.masks import Masks
from usbench.runs.store import Store
from usbench.share import graph
from usbench.share.choose import choose
from usbench.share.network import load_network
from usbench.share.recipes import encoder_recipe, network_recipe
from usbench.train import checkpoint
from usbench.train.networks import start_from

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def exported(resnet_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "resnet"
    api.export(resnet_run, folder)
    return folder


def blocks(card: Path) -> list[str]:
    """The Python of a card, block by block."""
    return re.findall(r"```python\n(.*?)```", card.read_text("utf-8"), re.S)


def kept(run: Path, finetuned: str) -> tuple[list[str], np.ndarray]:
    trained = choose(f"finetune-{finetuned}", [run.parent])
    folder = trained.first.folder
    return list(pd.read_csv(folder / "scores.csv").name), Masks(folder).all()


def test_the_lines_of_the_card_give_the_harness_features_and_masks(
    exported: Path, resnet_run: Path, tiny_pack: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network, encoder, preparing = blocks(exported / "README.md")
    assert "smp.Unet('resnet18'" in network and "timm.create_model('resnet18'" in encoder
    assert len(network.split("\n\n")[1].strip().splitlines()) == 3
    config = json.loads((exported / "config.json").read_text())
    names, masks = kept(resnet_run, config["finetuned"])
    pack, monkey = Pack(tiny_pack), monkeypatch
    place = {name: row for row, name in enumerate(pack.table.name)}
    folder = shutil.copytree(exported, tmp_path / "copy")
    monkey.chdir(folder)
    for name, mask in zip(names[:6], masks[:6], strict=True):
        Image.fromarray(pack.images[place[name]]).save("scan.png")
        around: dict[str, Any] = {}
        exec(preparing, around)
        with torch.inference_mode():
            exec(network, around)
            exec(encoder, around)
        full = torch.nn.functional.interpolate(around["logits"], size=mask.shape, mode="bilinear")[0, 0]
        assert np.array_equal((full > 0).numpy(), mask)
    stored = checkpoint.read(resnet_run.parent / "stages" / f"pretrain-{config['pretrained']}" / "weights.safetensors")
    entry = registry().get("backbone", "unet")
    theirs = entry.build(**entry.parse({"encoder": "resnet18", "width": "32"})).eval()
    theirs.encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in stored[0].items()})
    with torch.inference_mode():
        expected = theirs.encoder(around["images"])[-1].mean((2, 3))
    torch.testing.assert_close(around["features"], expected, atol=1e-5, rtol=1e-5)


def test_the_lines_of_the_readme_load_a_resnet_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lines,) = (block for block in blocks(ROOT / "README.md") if "unet.safetensors" in block)
    entry = registry().get("backbone", "unet-resnet18")
    network = entry.build(**entry.parse({})).eval()
    images = torch.randn(2, 1, 32, 32)
    encoder, whole = encoder_recipe(network, images), network_recipe(network, images)
    save_file(whole.renamed(network.state_dict()), tmp_path / "unet.safetensors")
    save_file(encoder.renamed(network.encoder.state_dict()), tmp_path / "encoder.safetensors")
    monkeypatch.chdir(tmp_path)
    around: dict[str, Any] = {"images": images}
    with torch.inference_mode():
        exec(lines, around)
        torch.testing.assert_close(around["logits"], network(images), atol=1e-5, rtol=1e-5)
        expected = network.encoder(images)[-1].mean((2, 3))
    torch.testing.assert_close(around["features"], expected, atol=1e-5, rtol=1e-5)


def test_the_hub_reads_the_card(exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    assert card.data.license == "other" and card.data.library_name == "segmentation-models-pytorch"
    assert {result.dataset_type for result in card.data.eval_results} == {"discs", "bright"}
    said = card.text
    for text in ("not a medical device", "@misc{chen2020", "| discs | fine-tuning", "usbench run --config run.toml"):
        assert text in said, text


def test_the_settings_of_an_export_make_it_again(exported: Path, usbench: Callable[..., Any], tiny_pack: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    text = (exported / "run.toml").read_text()
    assert str(tiny_pack.parent) not in text  # where files lay is nobody's business
    again = exported.parent / "again.toml"
    again.write_text(text.replace('"discs.h5"', f'"{tiny_pack}"').replace('"bright.h5"', '"bright"'))
    said = usbench("run", "--config", again, "--dry-run", "--out", exported.parent / "store")
    assert said.code == 0, said.err
    assert config["finetuned"] in said.out and config["pretrained"] in said.out


def test_an_encoder_taken_home_starts_another_run(exported: Path) -> None:
    entry = registry().get("backbone", "unet-resnet18")
    network = entry.build(**entry.parse({}))
    report = start_from(network, str(exported / "encoder.safetensors"))
    assert report is not None and report.loaded == len(network.encoder.state_dict()) and not report.unexpected


def test_usbench_loads_what_other_libraries_load(exported: Path) -> None:
    lines = blocks(exported / "README.md")[0].replace("unet.safetensors", str(exported / "unet.safetensors"))
    images = torch.randn(2, 1, 32, 32)
    around: dict[str, Any] = {"images": images}
    with torch.inference_mode():
        exec(lines, around)
        torch.testing.assert_close(load_network(exported)(images), around["logits"], atol=1e-5, rtol=1e-5)
        maps = api.load_pretrained_encoder(exported)(images)
    assert maps[-1].shape[1] == 512


@pytest.mark.parametrize("backbone", ["unet-tiny", "unet:mobilenetv3_small_050,width=16", "vit-tiny"])
def test_every_backbone_has_lines_that_work(backbone: str) -> None:
    name, _, options = backbone.partition(":")
    entry = registry().get("backbone", name)
    given = dict(zip(("encoder", "width"), options.replace("width=", "").split(","), strict=True)) if options else {}
    network = entry.build(**entry.parse(given)).eval()
    images = torch.randn(2, 1, 64, 64)
    encoder, whole = encoder_recipe(network, images), network_recipe(network, images)
    expected = {"vit-tiny": {"usbench"}}.get(backbone, {"timm", "smp"})
    assert {encoder.library, whole.library} <= expected


def test_a_baseline_has_no_pretrained_encoder_and_says_so(tiny_run: Path, tmp_path: Path) -> None:
    table = pd.read_csv(tiny_run / "leaderboard.csv")
    key = table[(table.loss == "none") & (table["shift"] == "in") & (table.label_fraction == 100)].key.iloc[0]
    made = api.export(key, tmp_path / "none", stores=[tiny_run.parent], seed=1)
    assert "encoder.safetensors" not in made.files and "unet.safetensors" in made.files
    assert "no pretrained encoder" in (tmp_path / "none" / "README.md").read_text()


def test_of_several_networks_the_chosen_one_is_said(
    tiny_run: Path, usbench: Callable[..., Any], tmp_path: Path
) -> None:
    said = usbench("export", tiny_run, "-o", tmp_path / "a")
    assert said.code == 0 and "chosen: 100 % of the labels, seed 0 (there is 50 %, 100 % with seeds 0, 1)" in said.out
    said = usbench("export", tiny_run, "-o", tmp_path / "b", "--labels", "50", "--seed", "1")
    assert said.code == 0
    record = json.loads((tmp_path / "b" / "record.json").read_text())["finetune"]
    assert record["row"]["label_fraction"] == 50 and record["row"]["seed"] == 1 and record["row"]["loss"] == "simclr"
    said = usbench("export", tiny_run, "-o", tmp_path / "c", "--labels", "20")
    assert said.code == 2 and "50 %, 100 %" in said.one_sentence()


def test_a_run_goes_by_folder_name_key_row_and_stage(tiny_run: Path) -> None:
    store, run = tiny_run.parent, json.loads((tiny_run / "run.json").read_text())
    trained = choose(str(tiny_run))
    names = [tiny_run.name, run["key"], run["key"][:8], f"finetune-{trained.key}", trained.key]
    names += [trained.first.row["setting"], trained.first.folder.name, str(trained.first.folder)]
    names += [f"pretrain-{trained.record['identity']['pretrained']}"]
    for name in names:
        assert choose(name, [store]).key == trained.key, name
    with pytest.raises(UsbenchError, match="unknown row 'nothing'"):
        choose("nothing", [store])


def test_a_folder_in_use_stays_as_it_is(exported: Path, resnet_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(UsbenchError, match=r"not empty|something else"):
            api.export(resnet_run, other, force=force)
    assert [path.name for path in other.iterdir()] == ["mine.txt"]
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / "old.txt").write_text("old")
    with pytest.raises(UsbenchError, match="--force"):
        api.export(resnet_run, copy)
    api.export(resnet_run, copy, force=True)
    assert not (copy / "old.txt").exists() and (copy / "unet.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "other"]  # no temporary folder is left


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_there_stays_the_same_one(
    force: bool, exported: Path, resnet_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    shutil.copytree(exported, here) if force else here.mkdir()
    monkeypatch.chdir(here)
    api.export(resnet_run, ".", force=force)
    names = {path.name for path in exported.iterdir()}
    assert Path.cwd() == here and {path.name for path in Path().iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_an_export_that_cannot_be_put_in_place_leaves_what_was_there(
    exported: Path, resnet_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, rename = shutil.copytree(exported, tmp_path / "here"), Path.rename
    (here / "old.txt").write_text("old")

    def fails(path: Path, target: Path) -> Path:
        if path.name == "unet.safetensors" and ".part" in str(path):
            raise OSError(28, "No space left on device")
        return rename(path, target)

    before = {path.name: path.read_bytes() for path in here.iterdir()}
    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(UsbenchError, match="No space left"):
        api.export(resnet_run, here, force=True)
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_without_the_pack_an_export_says_that_the_sector_is_a_guess(
    exported: Path, resnet_run: Path, tmp_path: Path, usbench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    guess = "whether those of discs have one was not known here"
    assert json.loads((exported / "config.json").read_text())["sector"] == "all"
    assert guess not in (exported / "README.md").read_text()
    store = shutil.copytree(resnet_run.parent, tmp_path / "store")
    run = store / resnet_run.name / "run.json"
    run.write_text(json.dumps({**json.loads(run.read_text()), "packs": {}}))
    monkeypatch.setenv("USBENCH_DATA", str(tmp_path / "elsewhere"))
    said = usbench("export", run.parent, "-o", tmp_path / "out")
    assert said.code == 0 and "note: the sector will be found in each image, since the pack of 'discs'" in said.err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["sector"] == "found"
    assert guess in (tmp_path / "out" / "README.md").read_text()


def test_without_its_run_an_export_says_that_it_has_no_settings(
    resnet_run: Path, tmp_path: Path, usbench: Callable[..., Any]
) -> None:
    store, key = shutil.copytree(resnet_run.parent, tmp_path / "store"), choose(str(resnet_run)).key
    (store / resnet_run.name / "run.json").unlink()
    said = usbench("export", key, "-o", tmp_path / "out", "--in", store)
    assert said.code == 0 and "note: there is no run.toml, since no run or suite that has ended says" in said.err
    assert not (tmp_path / "out" / "run.toml").exists()


def test_a_failed_export_leaves_nothing(resnet_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("usbench.share.export.network_recipe", fails)
    with pytest.raises(UsbenchError, match="No space left"):
        api.export(resnet_run, tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_hostile_names_are_inert_in_the_card(tiny_run: Path, tmp_path: Path) -> None:
    store = shutil.copytree(tiny_run.parent, tmp_path / "store")
    evil = "x\n---\n<script>alert(1)</script> | `y`"
    for path in store.glob("stages/*/record.json"):
        record = json.loads(path.read_text())
        record["row"] |= {"train_data": evil, "test_data": evil}
        path.write_text(json.dumps(record))
    api.export(store / tiny_run.name, tmp_path / "export")
    card = ModelCard.load(tmp_path / "export" / "README.md")
    assert card.data.license == "other" and "<script>" not in card.text


def _config(folder: Path, **changed: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


LIES: dict[str, Callable[[Path], Any]] = {
    "another backbone": lambda f: _config(f, backbone={"name": "unet-tiny", "options": {}}),
    "an unknown backbone": lambda f: _config(f, backbone={"name": "unet-resnet81", "options": {}}),
    "an option of the wrong type": lambda f: _config(f, backbone={"name": "unet", "options": {"width": [1]}}),
    "a giant network": lambda f: _config(f, backbone={"name": "unet", "options": {"width": 2**40}}),
    "another input": lambda f: _config(f, mean=0.5),
    "a size that does not divide": lambda f: _config(f, size=33),
    "no number": lambda f: (f / "config.json").write_text(
        (f / "config.json").read_text().replace('"deviation": 0.22', '"deviation": NaN')
    ),
    "a threshold of text": lambda f: _config(f, threshold="0.5"),
    "a lacking key": lambda f: (f / "config.json").write_text("{}"),
    "no JSON": lambda f: (f / "config.json").write_bytes(b"\x80\x04\x95pickle"),
    "deep JSON": lambda f: (f / "config.json").write_text("[" * 100_000),
    "no config": lambda f: (f / "config.json").unlink(),
    "a newer format": lambda f: _config(f, format=99),
    "a classifier": lambda f: _config(f, protocol={"name": "classify", "options": {}}, classes=["a", "b"]),
    "truncated weights": lambda f: (f / "unet.safetensors").write_bytes((f / "unet.safetensors").read_bytes()[:5000]),
    "a pickle": lambda f: torch.save({"a": torch.zeros(1)}, f / "unet.safetensors"),
    "a header that lies": lambda f: (f / "unet.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}"),
    "weights that are lost": lambda f: save_file(
        {k: v * float("nan") if v.is_floating_point() else v for k, v in load_file(f / "unet.safetensors").items()},
        f / "unet.safetensors",
    ),
    "a tensor too few": lambda f: save_file(
        dict(list(load_file(f / "unet.safetensors").items())[1:]), f / "unet.safetensors"
    ),
    "a tensor too many": lambda f: save_file(
        load_file(f / "unet.safetensors") | {"extra": torch.zeros(1)}, f / "unet.safetensors"
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_export_that_lies_is_refused_in_a_sentence(
    lie: str, exported: Path, tmp_path: Path, usbench: Callable[..., Any]
) -> None:
    folder = shutil.copytree(exported, tmp_path / "copy")
    LIES[lie](folder)
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "scan.png")
    said = usbench("predict", folder / "unet.safetensors", tmp_path / "scan.png", "-o", tmp_path / "out")
    assert said.code == 2, (said.out, said.err)
    said.one_sentence()


def test_without_the_extra_onnx_is_refused_before_anything_is_written(
    resnet_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usbench: Callable[..., Any]
) -> None:
    monkeypatch.setattr(graph.importlib.util, "find_spec", lambda name: None)
    said = usbench("export", resnet_run, "-o", tmp_path / "x", "--onnx")
    assert said.code == 2 and "usbench[onnx]" in said.one_sentence()
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))), reason="the extra 'onnx' is not installed"
)
def test_the_onnx_graph_gives_the_same_logits(tiny_run: Path, tmp_path: Path) -> None:
    import onnxruntime

    api.export(tiny_run, tmp_path / "x", onnx=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "x" / "unet.onnx"))
    images = torch.randn(3, 1, 32, 32)
    with torch.inference_mode():
        expected = load_network(tmp_path / "x")(images).numpy()
    np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, atol=1e-4)
    assert "ONNX" in (tmp_path / "x" / "README.md").read_text()


def test_a_network_that_was_lost_in_training_is_not_exported(tiny_run: Path, tmp_path: Path) -> None:
    store = Store(shutil.copytree(tiny_run.parent, tmp_path / "store"))
    trained = choose(tiny_run.name, [store.root])
    tensors = {k: v * float("nan") if v.is_floating_point() else v for k, v in load_file(trained.weights).items()}
    save_file(tensors, trained.weights)
    with pytest.raises(UsbenchError, match="no finite numbers"):
        api.export(tiny_run.name, tmp_path / "x", stores=[store.root])
    assert not (tmp_path / "x").exists()
