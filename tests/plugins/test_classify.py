"""Protocols that tell classes apart: what is trained and what stays, who is trained on, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from usbench_classify.classify import Classify
from usbench_classify.pocus import Pocus
from usbench_classify.stages import last_block, last_stage

from usbench.contracts import Labelled, Network
from usbench.data.cohort import Cohort
from usbench.data.feed import Feed
from usbench.data.pack import Pack
from usbench.data.packing import write_pack
from usbench.data.splits import Division, Wanted
from usbench.errors import Interrupted, UsbenchError
from usbench.hooks import Registry
from usbench.items import Item
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.stage import Plan, Stage
from usbench.runs.store import Store
from usbench.spec import resolve
from usbench.train import checkpoint, loop
from usbench.train.finetune import finetune
from usbench.train.loop import Compute
from usbench.train.networks import build_network
from usbench.train.passes import plain_images, train_mode
from usbench.train.schedule import Schedule

CPU = Compute(torch.device("cpu"), "float32")
CLASSES = ("benign", "malignant", "normal")
SAID = {"source": "tests", "licence": "none", "citation": "none", "importer": "tests:scans", "version": "1"}


class Quiet:
    """Watches, and asks to stop after some steps of a fine-tune."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop, self.stopping = stop, False

    def begin(self, stage: Stage, place: int, total: int) -> None:
        pass

    def step(self, *told: Any) -> None:
        self.stopping |= self.stop is not None and told[-4] >= self.stop

    def end(self, stage: Stage) -> None:
        pass

    def fail(self, stage: Stage, why: str) -> None:
        raise AssertionError(why)

    def wait(self, stage: Stage, who: str) -> None:
        pass


@pytest.fixture(scope="module")
def labelled(make_scans: Callable[..., Iterator[Item]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """110 images of 55 patients without a mask, every eleventh patient without a label."""
    items = (replace(item, mask=None) for item in make_scans(55))
    items = (replace(item, label=-1) if int(item.name[1:4]) % 11 == 3 else item for item in items)
    path = tmp_path_factory.mktemp("labelled") / "labelled.h5"
    write_pack(path, items, size=64, classes=CLASSES, attributes={"dataset": "labelled", **SAID})
    return path


@pytest.fixture(scope="module")
def other(make_scans: Callable[..., Iterator[Item]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same classes in another order, and a fourth."""
    place = {0: 2, 1: 0, 2: 1}
    items = (replace(i, label=place[i.label] if int(i.name[1:4]) else 3) for i in make_scans(8, seed=1))
    path = tmp_path_factory.mktemp("other") / "other.h5"
    names = ("malignant", "normal", "benign", "cyst")
    write_pack(path, items, size=64, classes=names, attributes={"dataset": "other", **SAID})
    return path


@pytest.fixture
def settings(tiny_settings: dict[str, Any], labelled: Path, other: Path) -> dict[str, Any]:
    steps = {"finetune": {"steps": 20, "batch": 8}, "labels": [100], "seeds": [0]}
    return {**tiny_settings, **steps, "data": [str(labelled)], "ood": [str(other)], "loss": "none"}


def done(settings: dict[str, Any], registry: Registry, out: Path) -> tuple[Plan, Store]:
    plan, store = make_plan(registry, resolve(settings), lambda *_: None), Store(out).open()
    run_plan(plan, store, registry, Quiet())
    return plan, store


def network(registry: Registry, name: str = "unet-tiny", **options: Any) -> Network:
    return build_network(registry.get("backbone", name), options, 32, seed=0)


def trained(given: Network, protocol: Classify, pack: Path, folder: Path) -> dict[str, Any]:
    """Fine-tune for a few steps on all labelled images."""
    protocol.classes = CLASSES
    table = Pack(pack).table
    feed = Feed([(Pack(pack), np.flatnonzero(table.label >= 0))], 32, CPU.device, classes=CLASSES)
    protocol.counts = tuple(int((feed.label == code).sum()) for code in range(3))
    return finetune(
        title="t", folder=folder, network=given, protocol=protocol, feed=feed, inner=feed, compute=CPU, seed=0, size=32,
        schedule=Schedule(6, 8, 1e-2, 1e-4, 0.0), watcher=Quiet(),
    )  # fmt: skip


@pytest.mark.parametrize(("train", "part"), [("full", ""), ("last-stage", "layer4"), ("head", "nothing")])
def test_what_is_frozen_does_not_move_and_the_rest_does(
    train: str, part: str, installed: Registry, labelled: Path, tmp_path: Path
) -> None:
    given = network(installed)
    first: dict[str, Tensor] = {}

    class Watched(Classify):
        """Keeps the state at the first step, when the statistics of clean images are in."""

        def adapt(self, network: Network) -> Any:
            self.model = super().adapt(network)
            return self.model

        def objective(self, output: Tensor, batch: Labelled) -> Tensor:
            first.update({n: v.clone() for n, v in self.model.state_dict().items() if n not in first})
            return super().objective(output, batch)

    protocol = Watched(train)
    trained(given, protocol, labelled, tmp_path)
    after = {name: value for name, value in protocol.model.state_dict().items() if "num_batches" not in name}
    moved = {name for name, value in after.items() if not torch.equal(value, first[name])}
    assert moved == {name for name in after if part in name or name.startswith("head.")}


@pytest.mark.parametrize(
    ("name", "options", "stage", "block"),
    [
        ("unet-tiny", {}, ["model.layer4"], ["model.layer4"]),
        ("unet-resnet18", {}, ["layer4"], ["layer4.1"]),
        ("unet-resnet50", {}, ["layer4"], ["layer4.2"]),
        ("unet", {"encoder": "convnext_atto"}, ["model.stages_3"], ["model.stages_3.blocks.1"]),
        ("unet", {"encoder": "regnety_002"}, ["model.s4"], ["model.s4.b7"]),
        ("unet", {"encoder": "efficientnet-b0"}, [f"_blocks.{n}" for n in range(11, 16)], ["_blocks.15"]),
        ("unet", {"encoder": "mobilenet_v2"}, [f"features.{n}" for n in range(14, 19)], ["features.17", "features.18"]),
        ("unet", {"encoder": "mit_b0"}, ["patch_embed4", "block4", "norm4"], ["block4.1", "norm4"]),
        (
            "unet",
            {"encoder": "mobilenetv3_small_050"},
            ["model.blocks.4", "model.blocks.5"],
            ["model.blocks.4.2", "model.blocks.5"],
        ),
        ("vit-tiny", {"dim": 32, "depth": 3}, ["blocks.2", "norm"], ["blocks.2", "norm"]),
    ],
)
def test_the_last_stage_is_what_makes_the_deepest_map_and_the_last_block_the_end_of_it(
    name: str, options: dict[str, Any], stage: list[str], block: list[str], installed: Registry
) -> None:
    given = network(installed, name, **options)
    names = {module: path for path, module in given.encoder.named_modules()}
    assert [names[unit] for unit in last_stage(given)] == stage
    assert [names[unit] for unit in last_block(given)] == block
    assert given.encoder.training


def test_a_last_stage_without_blocks_has_no_last_one(installed: Registry) -> None:
    with pytest.raises(ValueError, match="use train=last-stage"):
        last_block(network(installed, "unet", encoder="vgg11_bn"))


def test_an_encoder_that_does_not_show_its_stages_is_refused_in_a_sentence(installed: Registry) -> None:
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(1, 4, 3, 1, 1)

        def forward(self, images: Tensor) -> list[Tensor]:
            return [functional.avg_pool2d(self.convolution(images), 8)]

    given = Network(Plain(), torch.nn.Identity(), torch.nn.Identity(), dim=4, stride=8)
    with pytest.raises(ValueError, match="use train=full or train=head"):
        last_stage(given)


def test_every_class_weighs_the_same_in_the_objective_and_each_image_without_balance() -> None:
    output = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0] * 8 + [1] * 3 + [2])
    batch = Labelled(torch.zeros(12, 1, 2, 2), torch.zeros(12, 0, 2, 2), label)
    balanced, plain = Classify(), Classify(balance=False)
    balanced.counts = plain.counts = (8, 3, 1)
    each = [-float(output[i].log_softmax(0)[label[i]]) for i in range(12)]
    by_class = [sum(each[:8]) / 8, sum(each[8:11]) / 3, each[11]]
    assert float(balanced.objective(output, batch)) == pytest.approx(sum(by_class) / 3, abs=1e-5)
    assert float(plain.objective(output, batch)) == pytest.approx(sum(each) / 12, abs=1e-5)


def test_inner_validation_chooses_by_balanced_accuracy(installed: Registry, labelled: Path, tmp_path: Path) -> None:
    protocol = Classify("head")
    facts = trained(network(installed), protocol, labelled, tmp_path)
    weights, _ = checkpoint.read(tmp_path / "weights.safetensors")
    model = protocol.adapt(network(installed))
    model.load_state_dict(weights)
    table = Pack(labelled).table
    feed = Feed([(Pack(labelled), np.flatnonzero(table.label >= 0))], 32, CPU.device, classes=CLASSES)
    with torch.inference_mode():
        predicted = model.eval()(plain_images(feed, np.arange(feed.count), 32)).argmax(1)
    recalls = [float((predicted[feed.label == code] == code).float().mean()) for code in range(3)]
    assert facts["balanced_accuracy_inner"] == pytest.approx(sum(recalls) / 3, abs=1e-6)
    assert facts["selection"] == "inner"


def test_dropout_and_batchnorm_of_frozen_modules_stay_in_evaluation_mode(installed: Registry) -> None:
    protocol = Classify("last-block")
    protocol.classes = CLASSES
    model = protocol.adapt(network(installed))
    assert train_mode(model)
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes["encoder.model.layer4"] and not modes["encoder.model.layer1"] and not modes["encoder.model.bn1"]


def test_an_unknown_part_is_refused(installed: Registry) -> None:
    with pytest.raises(UsbenchError, match="train is 'tail': one of full, last-stage, last-block, head"):
        installed.get("protocol", "classify").build(train="tail")


def test_images_without_a_label_are_neither_trained_nor_tested_on(
    settings: dict[str, Any], installed: Registry, tmp_path: Path
) -> None:
    plan, store = done({**settings, "protocol": "classify", "finetune": {"steps": 4}}, installed, tmp_path)
    known = Pack(Path(settings["data"][0])).table
    scores = {s.row["test_data"]: pd.read_csv(store.folder(s.id) / "scores.csv") for s in plan.stages
              if s.kind == "evaluate" and s.row["loss"] == "none"}  # fmt: skip
    (tuned,) = [s for s in plan.stages if s.kind == "finetune" and s.row["loss"] == "none"]
    facts = store.record(tuned.id)["facts"]
    tested = known[known.name.isin(scores["labelled"].name)]
    assert (tested.label >= 0).all()
    assert facts["images"] + facts["inner_images"] + len(tested) == int((known.label >= 0).sum()) < len(known)
    assert facts["inner_images"] >= 10 and facts["selection"] == "inner"


def test_a_class_is_the_same_in_every_pack_and_one_that_was_never_trained_is_not_tested(
    settings: dict[str, Any], installed: Registry, tmp_path: Path
) -> None:
    plan, store = done({**settings, "protocol": "classify", "finetune": {"steps": 4}}, installed, tmp_path)
    (stage,) = [s for s in plan.stages if s.row.get("test_data") == "other" and s.row["loss"] == "none"]
    table = pd.read_csv(store.folder(stage.id) / "scores.csv").set_index("name")
    known = Pack(Path(settings["ood"][0]))
    names = {row["name"]: known.classes[row["label"]] for row in known.table.to_dict("records")}
    assert set(table.index) == {name for name, of in names.items() if of != "cyst"}
    assert [CLASSES[code] for code in table.label] == [names[name] for name in table.index]
    assert store.record(stage.id)["facts"]["classes"] == list(CLASSES)


def test_two_packs_are_trained_on_with_the_classes_of_both(
    settings: dict[str, Any], tiny_pack: Path, installed: Registry, tmp_path: Path
) -> None:
    both = {**settings, "data": [str(tiny_pack), settings["data"][0]], "allow_leaks": True, "protocol": "probe"}
    plan, store = done(both, installed, tmp_path)
    tables = {s.row["test_data"]: pd.read_csv(store.folder(s.id) / "scores.csv")
              for s in plan.stages if s.kind == "evaluate"}  # fmt: skip
    assert set(tables) == {"discs", "labelled", "other"}
    for table in tables.values():
        assert [name for name in table if name.startswith("p_")] == [f"p_{name}" for name in CLASSES]


def test_a_table_of_scores_has_a_row_an_image_and_no_lesion(
    settings: dict[str, Any], installed: Registry, tmp_path: Path
) -> None:
    plan, store = done({**settings, "protocol": "classify", "finetune": {"steps": 4}}, installed, tmp_path)
    stage = next(s for s in plan.stages if s.kind == "evaluate" and s.row["shift"] == "in")
    table = pd.read_csv(store.folder(stage.id) / "scores.csv")
    columns = ["name", "group", "label", "video", "predicted", "p_benign", "p_malignant", "p_normal"]
    assert list(table) == [*columns, "accuracy", "balanced_accuracy", "log_loss", "brier"]
    assert not (store.folder(stage.id) / "masks.safetensors").exists()
    probability = table[columns[5:]].to_numpy()
    assert probability.sum(1) == pytest.approx(np.ones(len(table)), abs=1e-5)
    assert (probability.argmax(1) == table.predicted).all()
    assert ((table.predicted == table.label) == table.accuracy).all()


@pytest.mark.parametrize("protocol", ["classify", "classify:last-block", "probe"])
def test_a_run_of_the_command_ends_well(
    protocol: str, usbench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    said = usbench("run", "--loss", "none", *tiny, "--protocol", protocol, "--out", tmp_path)
    assert said.code == 0, said.err
    assert "Mean " in said.out and list(tmp_path.glob("*/leaderboard.csv"))
    assert len(list(tmp_path.glob("stages/evaluate-*/scores.csv"))) == (4 if protocol == "probe" else 8)


def test_a_probe_takes_no_step_and_what_would_spend_some_is_named_as_missing(
    settings: dict[str, Any], installed: Registry, tmp_path: Path
) -> None:
    given = {**settings, "protocol": "probe"}
    plan, store = done(given, installed, tmp_path)
    assert {s.row["loss"] for s in plan.stages} == {"none"}
    assert any(text.startswith("none-long under protocol 'probe'") for text in plan.missing)
    facts = [store.record(s.id)["facts"] for s in plan.stages]
    assert all(f["steps"] == f["images_seen"] == 0 and f["selection"] == "none" for f in facts)
    more = make_plan(installed, resolve({**given, "finetune": {"steps": 99}}), lambda *_: None)
    assert [s.key for s in more.stages] == [s.key for s in plan.stages]
    with pytest.raises(UsbenchError, match=r"none-long under protocol 'probe'.*name another --loss"):
        make_plan(installed, resolve({**given, "loss": "none-long"}), lambda *_: None)


def test_a_pretrained_row_of_a_probe_costs_its_pretraining_alone(
    settings: dict[str, Any], installed: Registry, tmp_path: Path
) -> None:
    plan, store = done({**settings, "protocol": "probe", "loss": "simclr"}, installed, tmp_path)
    rows = {s.row["loss"]: store.record(s.id)["facts"]["steps"] for s in plan.stages if s.kind == "evaluate"}
    assert rows == {"simclr": 4, "none": 0}


def test_a_stopped_training_ends_in_the_same_bytes(
    settings: dict[str, Any], installed: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "WINDOW", 2)
    given = {**settings, "protocol": "pocus:last-block,batch=8", "ood": []}
    plan, whole = done(given, installed, tmp_path / "whole")
    store = Store(tmp_path / "stopped").open()
    for stop in (4, 12):
        with pytest.raises(Interrupted):
            run_plan(plan, store, installed, Quiet(stop))
    run_plan(plan, store, installed, Quiet())
    compared = 0
    for stage in plan.stages:
        for made in whole.folder(stage.id).iterdir():
            if made.suffix != ".json":
                assert made.read_bytes() == (store.folder(stage.id) / made.name).read_bytes()
                compared += 1
    assert compared > 20


def test_the_figure_of_the_best_step_on_the_test_set_stands_beside_and_does_not_choose(
    settings: dict[str, Any], installed: Registry, tmp_path: Path
) -> None:
    plan, store = done({**settings, "protocol": "pocus"}, installed, tmp_path)
    for stage in (s for s in plan.stages if s.kind == "evaluate"):
        facts, folder = store.record(stage.id)["facts"], store.folder(stage.id)
        if stage.row["shift"] == "out":  # the looks predict of the trained pack alone
            assert not (folder / "best-on-test.csv").exists() and facts["metrics"] == list(Pocus.metrics)
            continue
        table, best = pd.read_csv(folder / "scores.csv"), pd.read_csv(folder / "best-on-test.csv")
        assert facts["selection"] == "inner" and facts["metrics"] == list(Pocus.metrics)
        assert list(best) == list(table) and best.accuracy.mean() >= table.accuracy.mean()
    (tuned,) = [s for s in plan.stages if s.kind == "finetune" and s.row["loss"] == "none"]
    facts, folder = store.record(tuned.id)["facts"], store.folder(tuned.id)
    looks = {read[1]["step"]: read[0] for read in map(checkpoint.read, folder.glob("choice-*"))}
    assert sorted(looks) == list(range(2, 21, 2))
    assert sum(path.stat().st_size for path in folder.glob("choice-*")) < 100_000
    # What the chosen step predicted then is what the network predicts now.
    test = next(s for s in plan.stages if s.needs == (tuned.id,) and s.row["shift"] == "in")
    table = pd.read_csv(store.folder(test.id) / "scores.csv")
    chosen = looks[facts["chosen_step"]]
    rows = chosen["row"].numpy()
    names = Pack(Path(test.places["test"])).table.name.to_numpy()[rows]
    then = pd.DataFrame(chosen["predicted"].numpy(), index=names).loc[table.name]
    assert np.allclose(then, table[[f"p_{name}" for name in CLASSES]], atol=1e-5)


def test_looks_predict_nothing_that_is_trained_on_or_validated_on(labelled: Path) -> None:
    pack = Pack(labelled)
    cohort = Cohort(((pack, Division(0, wanted=Wanted(False, CLASSES))),))
    sides = cohort.fraction(50, 0)
    ((_, rows),) = cohort.untrained(sides)
    used = np.concatenate([taken for side in sides for _, taken in side])
    assert not set(rows) & set(used)
    assert set(rows) | set(used) == set(np.flatnonzero(pack.table.label >= 0))


def test_the_recipe_of_the_pocus_protocol_is_in_the_schedule_and_can_be_changed(
    settings: dict[str, Any], installed: Registry
) -> None:
    def schedule(protocol: str) -> dict[str, Any]:
        plan = make_plan(installed, resolve({**settings, "protocol": protocol}), lambda *_: None)
        return next(s for s in plan.stages if s.kind == "finetune").identity["schedule"]

    assert schedule("pocus") | {"steps": 20} == schedule("pocus")
    recipe = {"lr": 0.01, "weight_decay": 1e-4, "warmup": 0.0, "batch": 32}
    assert {name: schedule("pocus")[name] for name in recipe} == recipe
    assert schedule("pocus:lr=0.002")["lr"] == 0.002
    with pytest.raises(UsbenchError, match=r"protocol 'pocus' refuses lr=-1\.0: input should be greater than 0\."):
        schedule("pocus:lr=-1")


def test_pocus_crops_keep_four_fifths_of_the_area_and_stay_inside() -> None:
    matrix = Pocus().views(np.random.default_rng(0), 2000)
    across, down = np.abs(matrix[:, 0, 0]), matrix[:, 1, 1]
    assert np.allclose(across, down) and (matrix[:, 0, 1] == 0).all()
    area = across * down
    assert 0.8 <= area.min() < 0.82 and 0.98 < area.max() <= 1.0
    assert (np.abs(matrix[:, :2, 2]).T + across <= 1 + 1e-6).all()
    assert 0.45 < (matrix[:, 0, 0] < 0).mean() < 0.55


def test_one_class_alone_is_refused_in_a_sentence(
    settings: dict[str, Any], make_scans: Callable[..., Iterator[Item]], installed: Registry, tmp_path: Path
) -> None:
    path = tmp_path / "one.h5"
    items = (replace(item, label=0) for item in make_scans(10))
    write_pack(path, items, size=64, classes=("benign",), attributes={"dataset": "one", **SAID})
    with pytest.raises(UsbenchError, match=r"100 % of the labels of 'one' .* are all 'benign'"):
        make_plan(
            installed, resolve({**settings, "data": [str(path)], "ood": [], "protocol": "probe"}), lambda *_: None
        )


def test_a_set_without_what_a_protocol_needs_is_refused_with_what_fits(
    settings: dict[str, Any], installed: Registry
) -> None:
    with pytest.raises(UsbenchError, match="'segment' needs mask, which 'labelled' does not have; what fits: classify"):
        make_plan(installed, resolve({**settings, "protocol": "segment"}), lambda *_: None)
