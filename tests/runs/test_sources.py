"""Several packs in one run: who is trained and tested on; what leaks is refused, and recorded where it was let pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from usbench.data.cohort import whole
from usbench.data.feed import Feed
from usbench.data.frozen import read_split
from usbench.data.pack import Pack
from usbench.data.splits import Division, as_lists, fold_split, split
from usbench.errors import UsbenchError
from usbench.hooks import Registry
from usbench.items import Item
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.stage import Plan
from usbench.runs.store import Store
from usbench.spec import resolve

Scans = Callable[..., Iterator[Item]]
Write = Callable[..., Path]


def plan_of(registry: Registry, settings: dict[str, Any], **changes: Any) -> Plan:
    return make_plan(registry, resolve({"loss": "simclr", "seeds": [0], **settings, **changes}), lambda *_: None)


def rows_of(plan: Plan, loss: str = "simclr") -> dict[str, dict[str, Any]]:
    """The rows of the tests of a loss, by test set."""
    return {s.row["test_data"]: s.row for s in plan.stages if s.kind == "evaluate" and s.row["loss"] == loss}


def key(plan: Plan, kind: str) -> str:
    return next(s.key for s in plan.stages if s.kind == kind and s.row["loss"] == plan.spec.loss)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, make_scans: Scans, make_pack: Write) -> Path:
    """Another set: two scanners, one unlabelled patient."""
    items = [
        replace(item, name=f"s{item.name}", device="old" if int(item.patient[1:]) % 3 == 0 else "new")
        for item in make_scans(24, seed=5)
    ]
    return make_pack(tmp_path_factory.mktemp("second") / "second.h5", items, name="second")


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory, make_scans: Scans, make_pack: Write, tiny_pack: Path) -> Path:
    """A set of which one image is a training image of `discs`, a little darker."""
    pack = Pack(tiny_pack)
    name = str(pack.table.name[fold_split(pack, 0)[0][0]])
    stolen = next(item for item in make_scans() if item.name == name)
    changed = replace(stolen, name="stolen", patient="x", video="", image=(stolen.image * 0.85).astype(np.uint8))
    return make_pack(tmp_path_factory.mktemp("leaky") / "leaky.h5", [*make_scans(8, seed=7), changed], name="leaky")


def test_packs_that_are_trained_on_together_are_each_tested_on(
    installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path, second: Path
) -> None:
    plan = plan_of(installed, tiny_settings, data=[f"{tiny_pack}+{second}"])
    rows = rows_of(plan)
    assert {name: row["shift"] for name, row in rows.items()} == {"discs": "in", "second": "in", "bright": "out"}
    assert (
        {row["train_data"] for row in rows.values()} == {"discs+second"} == {r["pretrain_data"] for r in rows.values()}
    )
    alone = plan_of(installed, tiny_settings)
    assert rows_of(alone)["discs"]["arena"] != rows["discs"]["arena"]
    assert key(alone, "pretrain") != key(plan, "pretrain")


def test_a_device_left_out_is_an_unseen_test_set(
    installed: Registry, tiny_settings: dict[str, Any], second: Path
) -> None:
    plan = plan_of(installed, tiny_settings, data=[str(second)], leave_device="old")
    assert {name: row["shift"] for name, row in rows_of(plan).items()} == {
        "second": "in", "second/old": "out", "bright": "out",
    }  # fmt: skip
    assert {row["fold"] for row in rows_of(plan).values()} == {"0 without old"}
    with pytest.raises(UsbenchError, match="unknown device 'odl' in 'second': did you mean 'old'"):
        plan_of(installed, tiny_settings, data=[str(second)], leave_device="odl")


def test_other_packs_are_pretrained_on_whole_and_change_only_the_pretrained_rows(
    installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path, second: Path
) -> None:
    alone, more = plan_of(installed, tiny_settings), plan_of(installed, tiny_settings, pretrain_data=[str(second)])
    assert rows_of(more)["discs"]["pretrain_data"] == "second"
    assert key(alone, "pretrain") != key(more, "pretrain")
    assert rows_of(alone, "none") == rows_of(more, "none")
    assert rows_of(alone)["discs"]["arena"] == rows_of(more)["discs"]["arena"]
    assert rows_of(alone)["discs"]["setting"] != rows_of(more)["discs"]["setting"]
    both = plan_of(installed, tiny_settings, pretrain_data=[str(second), str(tiny_pack)])
    assert rows_of(both)["discs"]["pretrain_data"] == "second+discs"
    assert len({key(plan, "pretrain") for plan in (alone, more, both)}) == 3


def test_training_parts_of_the_same_sets_are_one_pretraining_whichever_is_trained_on(
    installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path, second: Path
) -> None:
    given = {"pretrain_data": [str(tiny_pack), str(second)], "pretrain_part": "train"}
    plans = [plan_of(installed, tiny_settings, **given, data=[data]) for data in (str(second), str(tiny_pack))]
    both = plan_of(installed, tiny_settings, data=[f"{tiny_pack}+{second}"])
    assert {key(plan, "pretrain") for plan in plans} == {key(both, "pretrain")}
    assert rows_of(plans[0])["second"]["pretrain_data"] == "discs/train+second"
    whole = plan_of(installed, tiny_settings, data=[str(tiny_pack)], pretrain_data=given["pretrain_data"])
    assert key(whole, "pretrain") != key(both, "pretrain")
    stage = next(stage for stage in plans[0].stages if stage.kind == "pretrain")
    places = next(stage for stage in both.stages if stage.kind == "pretrain").places
    assert stage.places["pretrain"] == places["pretrain"], "and a worker finds the same images"
    assert stage.places["pretrain_whole"] == []


def test_a_target_whose_training_part_was_pretrained_on_is_transductive_and_shares_the_pretraining(
    installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path, tiny_target: Path
) -> None:
    given = {"pretrain_data": [str(tiny_pack), str(tiny_target)], "pretrain_part": "train"}
    seen = plan_of(installed, tiny_settings, **given)
    assert rows_of(seen)["bright"]["shift"] == "out-transductive"
    assert key(seen, "pretrain") == key(plan_of(installed, tiny_settings, **given, ood=[]), "pretrain")


PEEKING = """
import torch
from usbench import Loss, hookimpl
from usbench.contracts import pooled

class Peeking(Loss):
    pretrain_labels = {declared!r}

    def objective(self, out, batch):
        with open({seen!r}, "a") as file:
            file.write("".join(f"{{label}} " for label in batch.label.tolist()))
        return pooled(out.maps[0]).square().mean()

@hookimpl
def usbench_losses(register):
    register("peeking", Peeking, summary="writes down what it is shown", {registered})
"""


@pytest.mark.parametrize(
    ("declared", "registered", "data", "known"),
    [
        ("none", "", ["discs", "second"], "none"),
        ("all", 'uses=("label",)', ["discs", "second"], "all"),
        ("all", 'uses=("label",)', ["discs"], "some"),
    ],
)
@pytest.mark.usefixtures("one_thread")
def test_labels_are_shown_to_losses_that_say_so_and_of_sets_that_are_trained_on(
    installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path, second: Path, quiet: Any,
    tmp_path: Path, declared: str, registered: str, data: list[str], known: str,
) -> None:  # fmt: skip
    (tmp_path / "plugins").mkdir()
    text = PEEKING.format(declared=declared, registered=registered, seen=str(tmp_path / "seen"))
    (tmp_path / "plugins" / "peeking.py").write_text(text)
    installed.load_folder(tmp_path / "plugins")
    paths = {"discs": tiny_pack, "second": second}
    plan = plan_of(
        installed, tiny_settings, loss="peeking", data=["+".join(str(paths[name]) for name in data)], ood=[],
        pretrain_data=[str(tiny_pack), str(second)], pretrain_part="train",
    )  # fmt: skip
    stage = next(stage for stage in plan.stages if stage.kind == "pretrain")
    run_plan(Plan(plan.spec, [stage], []), Store(tmp_path / "runs").open(), installed, quiet)
    unknown = [label == "-1" for label in (tmp_path / "seen").read_text().split()]
    assert {"none": all(unknown), "all": not any(unknown), "some": any(unknown) and not all(unknown)}[known]


def test_a_target_whose_images_were_pretrained_on_is_transductive_for_the_pretrained_rows_alone(
    installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path, tiny_target: Path
) -> None:
    plan = plan_of(installed, tiny_settings, pretrain_data=[str(tiny_pack), str(tiny_target)])
    assert rows_of(plan)["bright"]["shift"] == "out-transductive"
    assert rows_of(plan, "none")["bright"]["shift"] == "out"
    assert rows_of(plan)["discs"]["shift"] == "in"


def test_labels_of_packs_that_are_not_trained_on_are_no_labels(
    installed: Registry, tiny_settings: dict[str, Any], second: Path
) -> None:
    offered = {stage.kind: stage for stage in plan_of(installed, tiny_settings, pretrain_data=[str(second)]).stages}
    assert offered["pretrain"].places["pretrain"] == [] != offered["pretrain"].places["pretrain_whole"]

    pack = Pack(second)
    feed = Feed([(pack, np.arange(pack.count))], 32, torch.device("cpu"), unlabelled=[pack])
    assert set(feed.label.tolist()) == {-1}


@pytest.mark.parametrize("role", ["ood", "data", "pretrain_data"])
def test_a_near_duplicate_of_a_test_image_is_refused_on_whatever_side_it_is_trained(
    role: str, installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path, leaky: Path
) -> None:
    settings = {
        "ood": {"ood": [str(leaky)]},
        "data": {"data": [str(leaky)], "ood": [str(tiny_pack)]},
        "pretrain_data": {"pretrain_data": [str(tiny_pack)], "data": [str(leaky)], "ood": []},
    }[role]
    if role != "ood":  # a fold whose training side, or test side, has the stolen image
        pack, side = Pack(leaky), ("data", "pretrain_data").index(role)
        stolen = pack.table.name.tolist().index("stolen")
        settings["fold"] = next(fold for fold in range(5) if stolen in fold_split(pack, fold)[side])
    with pytest.raises(UsbenchError, match=r"near-duplicate of the test set .*stolen.*--allow-leaks"):
        plan_of(installed, tiny_settings, **settings)
    plan = plan_of(installed, tiny_settings, **settings, allow_leaks=True)
    leaks = {name: row["leaks"] for name, row in rows_of(plan).items()}
    assert sum(count > 0 for count in leaks.values()) == 1
    bare = {name: row["leaks"] for name, row in rows_of(plan, "none").items()}
    assert bare == (dict.fromkeys(leaks, 0) if role == "pretrain_data" else leaks)


def test_a_leak_that_was_let_pass_stands_in_the_table_and_the_record(
    usbench: Callable[..., Any], tiny: list[str], leaky: Path, tmp_path: Path
) -> None:
    flags = [*tiny, "--labels", "100", "--out", tmp_path, "--ood", leaky]
    refused = usbench("run", "--loss", "none", *flags)
    assert refused.code == 2 and "leave 'discs' or 'leaky' out" in refused.one_sentence()
    assert not list(tmp_path.rglob("record.json"))
    said = usbench("run", "--loss", "none", *flags, "--allow-leaks")
    assert said.code == 0, said.err
    assert "Let pass by --allow-leaks" in said.out
    table = pd.read_csv(next(tmp_path.glob("*/leaderboard.csv")))
    assert (table[table.test_data == "leaky"].leaks > 0).all()
    assert (table[table.test_data != "leaky"].leaks == 0).all()
    spec = json.loads(next(tmp_path.glob("*/run.json")).read_text())["spec"]
    assert spec["allow_leaks"] is True


@pytest.fixture
def lists(tiny_pack: Path) -> dict[str, list[str]]:
    pack = Pack(tiny_pack)
    return as_lists(pack, split(pack, Division(1), fraction=100, seed=0))


def test_a_written_split_gives_the_same_sides_when_it_is_read(
    usbench: Callable[..., Any], installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path, tmp_path: Path
) -> None:
    file = tmp_path / "split.json"
    assert usbench("data", "splits", tiny_pack, "--fold", 2, "-o", file).code == 0
    settings = {**tiny_settings, "labels": [100], "ood": []}
    frozen, fold = plan_of(installed, settings, split=[str(file)]), plan_of(installed, settings, fold=2)
    assert [key(frozen, kind) for kind in ("pretrain", "finetune")] == [key(fold, k) for k in ("pretrain", "finetune")]
    assert rows_of(frozen)["discs"]["fold"].startswith("split:")


def test_a_split_file_decides_who_is_trained_and_tested_on(
    usbench: Callable[..., Any], tiny: list[str], tmp_path: Path, lists: dict[str, list[str]]
) -> None:
    file = tmp_path / "split.json"
    file.write_text(json.dumps(lists["test"]))  # a plain list is the test set
    said = usbench("run", "--loss", "none", *tiny, "--labels", "100", "--split", file, "--out", tmp_path / "o")
    assert said.code == 0, said.err
    scores = [
        pd.read_csv(path.with_name("scores.csv"))
        for path in (tmp_path / "o").glob("stages/evaluate-*/record.json")
        if json.loads(path.read_text())["row"]["test_data"] == "discs"
    ]
    assert scores and all(set(table.name) == set(lists["test"]) for table in scores)


def test_a_split_file_that_cuts_a_patient_is_refused_unless_that_is_allowed(
    installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path, lists: dict[str, list[str]]
) -> None:
    file = tmp_path / "split.json"
    moved = lists["test"].pop()
    file.write_text(json.dumps({**lists, "train": [*lists["train"], moved]}))
    with pytest.raises(UsbenchError, match=f"two sides.*{moved[:4]}.*--allow-leaks"):
        plan_of(installed, tiny_settings, split=[str(file)])
    plan = plan_of(installed, tiny_settings, split=[str(file)], allow_leaks=True)
    assert rows_of(plan)["discs"]["leaks"] == 1 == rows_of(plan, "none")["discs"]["leaks"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("3", "has no lists 'train' and 'test'"),
        ('{"train": ["p000-0"]}', "has no lists"),
        ('{"train": ["p000-0"], "test": "p001-0"}', "'test' in .* is not a list of names"),
        ('{"train": ["p000-0"], "test": []}', "nobody to test on"),
        ('{"train": [], "test": ["p001-0"]}', "nobody to train on"),
        ('{"train": ["p000-0"], "test": ["p000-0"]}', "'p000-0' stands twice"),
        ('{"train": ["p000-0"], "test": ["p001-x"]}', "unknown image 'p001-x'.*did you mean 'p001-"),
        ('{"train": ["p000-0"], "test": ["p001-0"], "test": ["p002-0"]}', "'test' stands twice"),
        ("[" * 100_000, "is not JSON"),
        ('{"train": ["p000-0"], "tests": ["p001-0"], "test": ["p001-1"]}', "unknown side 'tests'"),
    ],
)
def test_a_bad_split_file_is_one_sentence(
    text: str, words: str, installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(UsbenchError, match=words):
        plan_of(installed, tiny_settings, split=[str(tmp_path / "split.json")])


def test_with_several_packs_a_split_file_says_whose_it_is(
    installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path, second: Path, tmp_path: Path,
    lists: dict[str, list[str]],
) -> None:  # fmt: skip
    file = tmp_path / "split.json"
    file.write_text(json.dumps(lists))
    data = [str(tiny_pack), str(second)]
    with pytest.raises(UsbenchError, match="say whose it is, for example discs="):
        plan_of(installed, tiny_settings, data=data, split=[str(file)])
    rows = rows_of(plan_of(installed, tiny_settings, data=data, split=[f"discs={file}"]))
    assert all(row["fold"].startswith("split:") and row["fold"].endswith(" 0") for row in rows.values())


def keys(plan: Plan, kind: str) -> dict[tuple[str, str], str]:
    return {(s.row["loss"], s.row.get("test_data", "")): s.key for s in plan.stages if s.kind == kind}


def test_rows_of_two_pools_of_labels_stand_in_two_arenas_though_they_know_the_same_images(
    installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path, lists: dict[str, list[str]]
) -> None:
    settings = {**tiny_settings, "ood": [], "labels": [100]}
    (tmp_path / "all.json").write_text(json.dumps(lists))
    mates = [name for name in lists["train"] if name.startswith(lists["train"][0][:4])]
    fewer = {**lists, "train": [n for n in lists["train"] if n not in mates], "unlabelled": mates}
    (tmp_path / "fewer.json").write_text(json.dumps(fewer))
    one, other = (rows_of(plan_of(installed, settings, split=[str(tmp_path / f"{n}.json")])) for n in ("all", "fewer"))
    assert one["discs"]["arena"] != other["discs"]["arena"]
    assert one["discs"]["setting"] != other["discs"]["setting"]


def test_a_test_that_stands_elsewhere_in_a_table_is_another_stage(
    installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    """Four steps and four more of `none-long` are the eight steps of `none` elsewhere: one training, two rows."""
    eight = {**tiny_settings, "finetune": {"steps": 8, "batch": 4}}
    four, more = plan_of(installed, tiny_settings), plan_of(installed, eight)
    assert keys(four, "finetune")["none-long", ""] == keys(more, "finetune")["none", ""]
    assert keys(four, "evaluate")["none-long", "discs"] != keys(more, "evaluate")["none", "discs"]


def test_simulated_packs_of_the_same_people_leak_into_one_another(
    installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    data, more = "phantom:l7,patients=10,size=32", "phantom:l7,patients=12,size=32"
    with pytest.raises(UsbenchError, match=r"of the same patient as one.*phantom-l7"):
        plan_of(installed, tiny_settings, data=["phantom:c5,patients=6,size=32"], ood=[data], pretrain_data=[more])
    apart = plan_of(installed, tiny_settings, data=[data], ood=["phantom:l12,patients=6,size=32"])
    assert {row["leaks"] for row in rows_of(apart).values()} == {0}


def test_sets_of_other_sizes_are_trained_on_together_only_where_all_are_read_at_one_side(
    installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path
) -> None:
    together = [str(tiny_pack), "phantom:c5,patients=6,size=32"]
    with pytest.raises(UsbenchError, match=r"'phantom-c5' is of 32 px and 'discs' of 64 px.*run at 25 px or less"):
        plan_of(installed, tiny_settings, data=together)
    assert plan_of(installed, tiny_settings, data=together[:1], ood=together[1:], pretrain_data=together[1:])
    assert plan_of(installed, tiny_settings, data=[str(tiny_pack), "phantom:c5,patients=6,size=48"])


@pytest.mark.parametrize("role", ["data", "ood", "pretrain_data"])
def test_a_set_stands_once_and_its_name_is_its_own(
    role: str, installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path, tmp_path: Path,
    make_pack: Write, make_scans: Scans,
) -> None:  # fmt: skip
    copy = tmp_path / "copy.h5"
    copy.write_bytes(tiny_pack.read_bytes())
    given = {"data": [str(tiny_pack), str(copy)], "ood": [str(copy)], "pretrain_data": [str(tiny_pack), str(copy)]}
    with pytest.raises(UsbenchError, match=r"twice: a target|twice: name it once"):
        plan_of(installed, tiny_settings, **{role: given[role]})
    other = make_pack(tmp_path / "other.h5", make_scans(6, seed=9), name="discs")
    with pytest.raises(UsbenchError, match="two different sets are called 'discs'"):
        plan_of(
            installed, tiny_settings, **{role: [str(tiny_pack), str(other)]} if role != "ood" else {role: [str(other)]}
        )


def test_a_copy_of_the_training_set_is_the_training_set(
    installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.h5"
    copy.write_bytes(tiny_pack.read_bytes())
    assert key(plan_of(installed, tiny_settings), "pretrain") == key(
        plan_of(installed, tiny_settings, pretrain_data=[str(copy)]), "pretrain"
    )


def test_a_device_left_out_is_not_pretrained_on_in_another_pack_either(
    installed: Registry, tiny_settings: dict[str, Any], tiny_pack: Path, second: Path, tmp_path: Path,
    make_pack: Write, make_scans: Scans,
) -> None:  # fmt: skip
    devices = ["old"] * 10 + ["new"] * 8 + [""] * 2  # what is of no known device may be of the one that is left out
    items = [replace(i, device=devices[int(i.patient[1:])]) for i in make_scans(20, seed=11)]
    third = make_pack(tmp_path / "third.h5", items, name="third")
    plan = plan_of(installed, tiny_settings, data=[str(second)], pretrain_data=[str(third)])
    without = plan_of(installed, tiny_settings, data=[str(second)], pretrain_data=[str(third)], leave_device="old")
    assert key(plan, "pretrain") != key(without, "pretrain")
    devices_kept = Pack(third).table.device.to_numpy()[whole(Pack(third), "old")]
    assert len(devices_kept) and set(devices_kept) == {"new"}
    assert len(whole(Pack(third), "")) == len(whole(Pack(third), "unheard of")) == len(items)


def test_who_a_split_file_validates_on_is_never_trained_on(
    tiny_pack: Path, tmp_path: Path, lists: dict[str, list[str]]
) -> None:
    patients = sorted({name[:4] for name in lists["train"]})
    of = {side: [n for n in lists["train"] if (n[:4] in patients[:3]) == (side == "val")] for side in ("train", "val")}
    (tmp_path / "val.json").write_text(json.dumps({**lists, **of}))
    pack = Pack(tiny_pack)
    for fraction in (20, 50, 100):
        sides = split(pack, Division(frozen=read_split(tmp_path / "val.json")), fraction=fraction, seed=0)
        assert set(pack.table.name[sides.labelled]) <= set(of["train"]) and len(sides.inner) == 0


def test_a_written_split_can_be_read_where_patients_are_annotated_in_part(
    usbench: Callable[..., Any], installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path, make_pack: Write,
    make_scans: Scans,
) -> None:  # fmt: skip
    items = [replace(i, mask=i.mask if i.name.endswith("0") else None) for i in make_scans(80)]
    part, file = make_pack(tmp_path / "part.h5", items, name="part"), tmp_path / "split.json"
    assert usbench("data", "splits", part, "-o", file).code == 0
    lists = json.loads(file.read_text())
    assert {name[:4] for name in lists["val"]} & {name[:4] for name in lists["unlabelled"]}
    assert rows_of(plan_of(installed, tiny_settings, data=[str(part)], split=[str(file)]))["part"]["leaks"] == 0


def test_a_written_split_can_be_read_where_there_are_labels_and_no_masks(
    usbench: Callable[..., Any], installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path, make_pack: Write,
    make_scans: Scans,
) -> None:  # fmt: skip
    labels, file = make_pack(tmp_path / "l.h5", [replace(i, mask=None) for i in make_scans(80)], name="l"), "split.json"
    assert usbench("data", "splits", labels, "-o", tmp_path / file).code == 0
    settings = {**tiny_settings, "labels": [100], "ood": [], "data": [str(labels)], "protocol": "classify"}
    frozen, fold = plan_of(installed, settings, split=[str(tmp_path / file)]), plan_of(installed, settings)
    assert key(frozen, "finetune") == key(fold, "finetune")
    told = json.loads(usbench("data", "info", labels, "--json").out)["splits"]["100"]
    lists = json.loads((tmp_path / file).read_text())
    assert [told["labelled"], told["inner"]] == [len(lists[side]) for side in ("train", "val")] and told["inner"]
    nothing = make_pack(tmp_path / "n.h5", [replace(i, mask=None, label=-1) for i in make_scans(20)], name="n")
    said = usbench("data", "splits", nothing, "-o", tmp_path / "none.json")
    assert said.code == 2 and "neither masks nor labels" in said.err and not (tmp_path / "none.json").exists()
