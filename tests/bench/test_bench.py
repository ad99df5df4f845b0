"""`usbench bench`: every comparison runs, says what it is, and is saved; what it measures is tested where it can be."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from usbench.bench import board, compiled, epoch, growth, recipe, several, sizes, together
from usbench.bench.lines import COLUMNS, Case, Line, against
from usbench.bench.machine import disturbed
from usbench.bench.setting import WHAT, Setting, make_setting
from usbench.bench.subject import finetuning, pretraining
from usbench.bench.timing import Phases, Samples, in_turns
from usbench.data.pack import Pack

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def setting(tiny_pack: Path) -> Setting:
    return make_setting({"data": str(tiny_pack), "device": "cpu"}, quick=True)


def test_sides_have_their_turns_one_after_the_other() -> None:
    order: list[str] = []

    def side(name: str, seconds: float) -> Callable[[], int]:
        def work() -> int:
            order.append(name)
            time.sleep(seconds)
            return 2

        return work

    found = in_turns({"a": side("a", 0.004), "b": side("b", 0.016)}, CPU, turns=3, warm_up=1)
    assert order == ["a", "b"] * 4
    assert len(found["a"].values) == 3  # the warm-up is not counted
    assert found["a"].median >= 2 and found["b"].median >= 8  # milliseconds a unit
    ratio = found["b"].over(found["a"])
    assert ratio.values == tuple(b / a for a, b in zip(found["a"].values, found["b"].values, strict=True))


def test_a_median_is_not_moved_by_one_disturbed_turn() -> None:
    samples = Samples((1.0, 2.0, 3.0, 4.0, 400.0))
    assert samples.median == 3 and samples.quartiles == (2, 4)


def test_phases_time_what_is_watched_and_put_everything_back() -> None:
    class Thing:
        def slow(self) -> int:
            time.sleep(0.01)
            return 7

    thing, plain = Thing(), Thing.slow
    with Phases(CPU) as phases:
        phases.watch(thing, "slow", "of one")
        phases.watch(Thing, "slow", "of all")
        assert thing.slow() == 7 and Thing().slow() == 7
    assert phases.seconds["of one"] >= 0.01 and phases.seconds["of all"] >= 0.01
    assert Thing.slow is plain and "slow" not in vars(thing)


def test_a_bench_goes_through_the_true_loop(setting: Setting, tmp_path: Path) -> None:
    for kind, make in (("pretrain", pretraining), ("finetune", finetuning)):
        (tmp_path / kind).mkdir()
        subject = make(setting, setting.backbones[0], 32, tmp_path / kind)
        before = [p.detach().clone() for group in subject.training.optimizer.param_groups for p in group["params"]]
        assert subject.go_on(3) == 3 and subject.training.step == 3
        subject.go_on(2)
        assert [row["step"] for row in subject.training.rows] == [3, 5]
        after = [p for group in subject.training.optimizer.param_groups for p in group["params"]]
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_shares_of_a_step_are_those_of_all_its_time(setting: Setting, tmp_path: Path) -> None:
    for kind, make in (("pretrain", pretraining), ("finetune", finetuning)):
        (tmp_path / kind).mkdir()
        shares = sizes.shares_of(make(setting, setting.backbones[0], 32, tmp_path / kind), CPU, 2)
        assert list(shares) == ["feed", "augmentation", "forward_backward", "optimiser", "loop"]
        assert sum(shares.values()) == pytest.approx(1)
        assert all(share > 0 for share in shares.values())
        assert shares["forward_backward"] > shares["feed"]


def test_every_library_makes_two_views_of_the_same_recipe(setting: Setting) -> None:
    images = np.full((8, 40, 40), 77, np.uint8)  # (77/255 − mean) / deviation wherever brightness and rotation leave it
    wanted = (77 / 255 - 0.30) / 0.22
    plain = {**setting.recipe, "brightness": 0.0, "contrast": 0.0, "degrees": 0.0}
    loader = recipe.lightly(Setting(**{**vars(setting), "recipe": plain}), images, 32, 1)
    (made,) = list(loader)
    assert [view.shape for view in made] == [(8, 1, 32, 32)] * 2
    assert torch.allclose(made[0], torch.full_like(made[0], wanted), atol=0.02)
    vision = recipe.torchvision(plain, 32)
    batch = torch.from_numpy(images)[:, None]
    each = recipe.one_by_one(vision)(batch)
    assert each.shape == (8, 1, 32, 32) and torch.allclose(each, torch.full_like(each, wanted), atol=0.02)


def test_torchvision_gives_each_image_its_own_parameters_only_one_by_one(setting: Setting) -> None:
    torch.manual_seed(0)
    batch = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(4, 1, 1, 1)
    vision = recipe.torchvision(setting.recipe, 16)
    together, alone = vision(batch), recipe.one_by_one(vision)(batch)
    assert torch.equal(together[0], together[1]) and not torch.equal(alone[0], alone[1])


def test_kornia_is_a_comparator_and_nothing_else(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, usbench: Callable[..., Any], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    said = usbench(
        "bench", "--quick", "--what", "views", "--data", setting.data, "--device", "cpu", "-o", tmp_path / "out"
    )
    assert said.code == 0, said.err
    table = pd.read_csv(tmp_path / "out" / "bench.csv").set_index("side")
    assert table.note["kornia"].startswith("not measured") and np.isnan(table.value["kornia"])
    assert table.value["ours"] > 0
    assert table.ratio["lightly"] > 0 and table.ratio_of["lightly"] == "times ours"


def test_an_epoch_reads_the_images_that_ours_holds(setting: Setting, tmp_path: Path) -> None:
    epoch.write_images(setting, 32, tmp_path / "images", 50)
    files = sorted((tmp_path / "images").iterdir())
    assert len(files) == 50
    with Image.open(files[0]) as picture:
        assert picture.mode == "L" and picture.size == (40, 40)  # 1.25 times the size
    encoder = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, bias=False), torch.nn.Conv2d(4, 4, 3))
    epoch.see_colours(encoder)
    assert encoder(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 4, 4)


def test_a_batch_of_large_images_holds_as_many_pixels() -> None:
    assert [sizes.batch_at(64, size) for size in (64, 224, 384, 1024)] == [64, 64, 20, 4]


def test_a_board_is_planned_from_its_first_stages_as_a_suite_is_planned() -> None:
    def record(kind: str, steps: int, seconds: float, loss: str = "a") -> dict[str, Any]:
        schedule = {"schedule": {"steps": steps, "batch": 4}} if kind != "evaluate" else {}
        row = {
            "backbone": "b", "size": 64, "device": "cpu", "precision": "p", "threads": 1, "loss": loss, "aug": "",
            "protocol": "", "test_data": "",
        }  # fmt: skip
        facts, identity = {"device_seconds": seconds}, {"kind": kind, **schedule}
        return {"kind": kind, "identity": identity, "row": row, "seconds": seconds + 1, "facts": facts}

    records = [record("pretrain", 10, 20.0), record("pretrain", 30, 50.0), record("pretrain", 20, 40.0, "other")]
    records += [record("evaluate", 0, 1.0), record("evaluate", 0, 4.0)]
    assert board.estimated(records) == (60.0 + 40.0 + 2.0, 51.0 + 41.0 + 5.0, 0)  # planned, and taken as a whole
    strange = record("pretrain", 10, 9.0)
    strange["row"]["device"] = "unseen"
    assert board.estimated([*records[:3], strange])[2] == 1


def test_growth_is_told_from_one_number_of_images_to_the_next() -> None:
    def found(step: float, memory: float) -> dict[str, Any]:
        return {"step": [step], "memory": [memory], "step_note": "", "memory_note": ""}

    setting = make_setting({"device": "cpu"}).widened("growth")
    assert setting.sizes == (64, 128) and setting.counts[-1] == 100_000
    of = {1000: found(10.0, 500.0), 10000: found(20.0, 600.0), 100000: None, 10**6: found(21.0, 690.0)}
    lines = {line.side: line for line in growth.lines(setting, 128, "streamed", of)}
    assert lines["step, 1000 streamed"].ratio is None
    assert lines["step, 10000 streamed"].ratio == Samples((2.0,)) and not lines["step, 10000 streamed"].asked
    assert lines["step, 100000 streamed"].note.startswith("not measured")
    memory = lines["memory, 1000000 streamed"]
    assert memory.ratio == Samples((1.15,)) and (memory.asked, memory.met) == ("≤ 1.1", False)


def test_stages_an_hour_are_counted_while_all_workers_are_at_work() -> None:
    assert several.hourly([10.0, 11.0, 12.0, 13.0], 1) == pytest.approx(3600)
    # Two workers: one begins late, one ends early, and between they end a stage every half second.
    assert several.hourly([10.0, 15.0, 15.5, 16.0, 16.5, 17.0, 25.0], 2) == pytest.approx(7200)


def test_fine_tunes_stacked_into_one_model_learn_what_each_learns_alone(setting: Setting, tmp_path: Path) -> None:
    each = together.fine_tunes(setting, "float32", 2, tmp_path)
    first, second = (one.batch_of(0).images for one in each)
    assert not torch.equal(first, second)
    stacked = together.Stacked(each)
    began = {name: value.clone() for name, value in {**stacked.weights, **stacked.buffers}.items()}
    for step in range(3):
        losses = stacked.learn([one.batch_of(step) for one in each])
        alone = [float(one.learn(one.batch_of(step))["loss"]) for one in each]
        assert losses.tolist() == pytest.approx(alone, rel=1e-4)
    for place, one in enumerate(each):
        alone_state = one.model.state_dict()
        for held in (
            stacked.weights,
            {name: value for name, value in stacked.buffers.items() if value.is_floating_point()},
        ):
            off = sum(float((value[place] - alone_state[name]).square().sum()) for name, value in held.items())
            moved = sum(float((began[name][place] - alone_state[name]).square().sum()) for name in held)
            assert moved > 0 and off < 0.01 * moved  # AdamW's first steps make much of gradients next to nothing


def test_where_nothing_can_be_compiled_it_is_said_so(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise FileNotFoundError("no C++ compiler")

    monkeypatch.setattr(compiled, "_backend", lambda setting: broken)
    (line,) = compiled.views(setting, "freq", "freq", 32)
    assert line.samples is None and line.note.startswith("not measured: ") and "no C++ compiler" in line.note


def test_a_pack_for_growth_holds_as_many_frames_as_asked(tiny_pack: Path, tmp_path: Path) -> None:
    source = Pack(tiny_pack)
    growth.write(tmp_path / "more.h5", source, source.count + 3)
    more = Pack(tmp_path / "more.h5")
    assert more.count == source.count + 3 and len(set(more.table.name)) == more.count
    again = np.array([0, source.count]), np.array([0, 0])
    masks, sectors = (more.plane(name, again[0]) for name in ("mask", "sector"))
    assert (masks == source.plane("mask", again[1])).all() and (sectors == source.plane("sector", again[1])).all()


def test_what_is_asked_is_judged_but_never_of_a_quick_bench(setting: Setting) -> None:
    real = make_setting({"device": "cpu"})
    assert against(real, "step, ours", 0.94) == ("≥ 0.93", True)
    assert against(real, "step, ours", 0.92) == ("≥ 0.93", False)
    assert against(real, "overhead, usbench --help", 0.6, most=True) == ("≤ 0.5", False)
    assert against(real, "views, ours", 1.0) == ("", None)
    assert against(setting, "step, ours", 0.94) == ("", None)


def test_a_busy_machine_is_said_to_be_busy() -> None:
    assert "busy" in disturbed({"load": 3.0, "cores": 2})
    assert not disturbed({"load": 0.4, "cores": 2}) and not disturbed({"load": None, "cores": 2})


def test_a_line_that_was_not_measured_has_no_number() -> None:
    row = Line(Case("views", 64), "kornia", note="not measured").row()
    assert row["value"] == "" and row["note"] == "not measured" and set(row) == set(COLUMNS)


@pytest.mark.parametrize(
    "what", [("step", "views", "sizes", "overhead"), pytest.param(tuple(WHAT), marks=pytest.mark.slow)]
)
def test_the_bench_command_measures_what_is_asked_and_saves_it(
    what: tuple[str, ...], setting: Setting, usbench: Callable[..., Any], tmp_path: Path
) -> None:
    words = ("--quick", "--what", ",".join(what), "--data", setting.data, "--device", "cpu")
    said = usbench("bench", *words, "-o", tmp_path / "out")
    assert said.code == 0, said.err
    table = pd.read_csv(tmp_path / "out" / "bench.csv")
    assert list(dict.fromkeys(table.what)) == list(what)
    measured = table[table.value.notna()]
    assert (measured.value > 0).all() and set(table.side[table.value.isna()]) <= {"kornia", "stages", "auto"}
    step = table[table.what == "step"].set_index("side")
    assert step.ratio["ours"] > 0 and step.ratio_of["ours"] == "bare / ours"
    shares = table.filter(like="share_").dropna(how="all")
    assert len(shares) == 2 and np.allclose(shares.sum(axis=1), 1)
    found = json.loads((tmp_path / "out" / "bench.json").read_text("utf-8"))
    assert {"cpu", "flags", "cores", "threads", "load", "versions", "auto_precision"} <= found["machine"].keys()
    assert found["setting"]["quick"] and len(found["lines"]) == len(table)
    with Image.open(tmp_path / "out" / "bench.png") as picture:
        assert min(picture.size) > 300
    assert "usbench run, cached" in said.out and "–" in said.out


@pytest.mark.parametrize(
    ("words", "of"),
    [
        (("--what", "stepp"), "did you mean 'step'?"),
        (("--size", "12x"), "--size 12x"),
        (("--size", "8"), "32 to 1024"),
        (("--batch", "1"), "batch is 1"),
        (("--what", "board", "--store", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(
    words: tuple[str, ...], of: str, usbench: Callable[..., Any], tmp_path: Path
) -> None:
    said = usbench("bench", *words, "-o", tmp_path / "out")
    assert said.code == 2 and of in said.one_sentence()
    assert not (tmp_path / "out").exists()
