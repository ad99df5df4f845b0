"""The training loop: stopped or killed and gone on with, it ends in the same bytes; a NaN ends it in a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from usbench_segment.protocol import Segment

from usbench import Batch, Loss, Network, Out
from usbench.contracts import Labelled
from usbench.data import room
from usbench.data.feed import Feed
from usbench.data.pack import Pack
from usbench.errors import Interrupted, RunFailed, UsbenchError
from usbench.hooks import Entry, registry
from usbench.train import checkpoint, loop
from usbench.train.finetune import finetune
from usbench.train.loop import STATE, WINDOW, Compute, Training, adamw
from usbench.train.networks import build_network
from usbench.train.passes import inner_score
from usbench.train.pretrain import Part, pretrain
from usbench.train.schedule import Schedule

CPU = Compute(torch.device("cpu"), "float32")
SIZE = 32


pytestmark = pytest.mark.usefixtures("one_thread")


class Quiet:
    """Lets the training run to its end."""

    stopping = False

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, float, float]] = []

    def step(self, done: int, total: int, loss: float, rate: float) -> None:
        self.seen.append((done, total, loss, rate))


class StopsAfter(Quiet):
    """Asks to stop when it has been looked at so many times: once a step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    @property
    def stopping(self) -> bool:  # type: ignore[override]
        self.left -= 1
        return self.left <= 0


class Toy:
    """A small regression through `Training`, each step of which depends on all before it."""

    def __init__(self, folder: Path, schedule: Schedule, do: Callable[[int], Tensor] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        self.net = nn.Linear(3, 1)
        self.net.seen = torch.zeros(3)  # a plain attribute that the next step reads
        self.bend = do or (lambda step: torch.tensor(0.0))
        self.training = Training("the toy", folder, schedule, {"net": self.net}, adamw(schedule, [(self.net, 1.0)]))

    def step(self, step: int) -> dict[str, Tensor]:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        self.net.seen = self.net.seen + x.mean(0).detach()
        loss = (self.net(x + self.net.seen) - 1).square().mean() + self.bend(step)
        self.training.optimizer.zero_grad()
        loss.backward()
        self.training.optimizer.step()
        return {"fit": loss.detach(), "half": loss.detach() / 2}

    def run(self, watcher: Quiet, after: Callable[[int], None] = lambda done: None) -> None:
        self.training.run(self.step, watcher, after)


SCHEDULE = Schedule(steps=27, batch=4, lr=0.05, weight_decay=0.1, warmup=0.2)


def made(folder: Path) -> dict[str, bytes]:
    """What a training is for: its results without its state, which holds a time."""
    return {name: content for name, content in files(folder).items() if name != STATE}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# The schedule.


def test_the_rate_rises_in_a_line_then_falls_in_a_half_cosine() -> None:
    schedule = Schedule(steps=100, batch=4, lr=0.4, weight_decay=0.0, warmup=0.1)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.04 * (step + 1) for step in range(10)])
    assert rates[9] == rates[10] == max(rates) == 0.4
    for step in range(10, 100):
        assert rates[step] == pytest.approx(0.2 * (1 + math.cos(math.pi * (step - 10) / 90)))
    assert rates[55] == pytest.approx(0.2)
    assert 0 < rates[99] < 0.001


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 1.0), (2, 0.1), (10, 1.0), (10, 0.0)])
def test_every_step_of_any_schedule_learns_and_none_beyond_the_rate(steps: int, warmup: float) -> None:
    schedule = Schedule(steps, 4, 0.4, 0.0, warmup)
    assert all(0 < schedule.rate(step) <= 0.4 for step in range(steps))


def test_norms_and_biases_are_not_decayed_and_each_part_has_its_factor() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 1))
    net[2].bias.requires_grad_(False)
    optimizer = adamw(replace(SCHEDULE, weight_decay=0.3), [(net[0], 0.1), (net, 1.0)])
    names = {id(p): name for name, p in net.named_parameters()}
    groups = {
        (group["factor"], group["weight_decay"]): {names[id(p)] for p in group["params"]}
        for group in optimizer.param_groups
    }
    assert groups == {
        (0.1, 0.3): {"0.weight"}, (0.1, 0.0): {"0.bias"},
        (1.0, 0.3): {"2.weight"}, (1.0, 0.0): {"1.weight", "1.bias"},
    }  # fmt: skip


def test_each_step_is_done_at_its_rate_times_the_parts_factor(tmp_path: Path) -> None:
    toy = Toy(tmp_path, SCHEDULE)
    toy.training.optimizer.param_groups[0]["factor"] = 0.5
    seen = []

    def do(step: int) -> dict[str, Tensor]:
        seen.append([group["lr"] for group in toy.training.optimizer.param_groups])
        return {"loss": torch.tensor(1.0)}

    toy.training.run(do, Quiet())
    assert seen == [[0.5 * SCHEDULE.rate(step), SCHEDULE.rate(step)] for step in range(SCHEDULE.steps)]


# The curve, and who is told.


def test_the_curve_has_the_mean_of_each_window_and_its_parts(tmp_path: Path) -> None:
    toy, watcher, every = Toy(tmp_path, SCHEDULE), Quiet(), []
    toy.training.run(lambda step: every.append(toy.step(step)) or every[-1], watcher)
    cost = toy.training.finish(toy.net.state_dict())
    curve = pd.read_csv(tmp_path / "curve.csv")
    assert curve.step.tolist() == [10, 20, 27] and list(curve.columns) == ["step", "lr", "loss", "fit", "half"]
    for row, (start, stop) in zip(curve.itertuples(), [(0, 10), (10, 20), (20, 27)], strict=True):
        fit = np.mean([float(parts["fit"]) for parts in every[start:stop]])
        assert row.fit == pytest.approx(fit, rel=1e-5) and row.half == pytest.approx(fit / 2, rel=1e-5)
        assert row.loss == pytest.approx(1.5 * fit, rel=1e-5) and row.lr == pytest.approx(
            SCHEDULE.rate(stop - 1), rel=1e-5
        )
    assert [seen[:2] for seen in watcher.seen] == [(10, 27), (20, 27), (27, 27)]
    assert [seen[2] for seen in watcher.seen] == pytest.approx(curve.loss.tolist(), rel=1e-5)
    assert all(seen[3] > 0 for seen in watcher.seen)
    assert cost["device_seconds"] >= 0 and cost["peak_mib"] > 10
    assert sorted(files(tmp_path)) == ["curve.csv", "weights.safetensors"]


@pytest.mark.parametrize("worth", [0.0, 60.0])
def test_work_that_is_worth_it_is_kept_until_the_stage_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worth: float
) -> None:
    monkeypatch.setattr(loop, "WORTH_SECONDS", worth)
    toy = Toy(tmp_path, SCHEDULE)
    toy.run(Quiet())
    toy.training.finish(toy.net.state_dict())
    assert (STATE in files(tmp_path)) == (worth == 0.0)
    if not worth:
        assert Toy(tmp_path, SCHEDULE).training.step == SCHEDULE.steps


@pytest.mark.parametrize("name", ["loss", "step", "lr"])
def test_a_part_that_is_called_like_a_column_of_the_curve_is_refused(tmp_path: Path, name: str) -> None:
    toy = Toy(tmp_path, SCHEDULE)
    with pytest.raises(ValueError, match=f"a part of the loss is called '{name}'"):
        toy.training.run(lambda step: {name: torch.tensor(1.0), "other": torch.tensor(2.0)}, Quiet())


def test_parts_in_another_order_give_the_same_curve(tmp_path: Path) -> None:
    def parts(step: int, turned: bool) -> dict[str, Tensor]:
        found = {"fit": torch.tensor(1.0 + step), "half": torch.tensor(2.0)}
        return dict(reversed(found.items())) if turned and step % 3 else found

    rows = []
    for turned in (False, True):
        toy = Toy(tmp_path / str(turned), SCHEDULE)
        toy.training.run(lambda step, turned=turned: parts(step, turned), Quiet())
        rows.append(toy.training.rows)
    assert rows[0] == rows[1] and list(rows[0][0]) == ["step", "lr", "loss", "fit", "half"]


@pytest.mark.parametrize("later", [{"fit", "half", "late"}, {"fit"}, {"fit", "late"}], ids=sorted)
def test_parts_that_come_or_go_are_a_sentence(tmp_path: Path, later: set[str]) -> None:
    toy = Toy(tmp_path, SCHEDULE)
    with pytest.raises(RunFailed, match=r"the loss of the toy has the parts .* at step 3, and had fit, half: give"):
        toy.training.run(
            lambda step: dict.fromkeys(sorted(later) if step == 3 else ["fit", "half"], torch.tensor(1.0)), Quiet()
        )


# Stopped, killed, gone on with.


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    toy = Toy(folder, SCHEDULE)
    toy.run(Quiet())
    toy.training.finish(toy.net.state_dict())
    return made(folder)


@pytest.mark.parametrize("step", [1, 9, 10, 13, 26])
def test_stopped_at_a_step_and_gone_on_with_it_ends_in_the_same_bytes(
    tmp_path: Path, undisturbed: dict[str, bytes], step: int
) -> None:
    done: list[int] = []
    with pytest.raises(Interrupted, match=rf"the toy is saved at step {step} of 27"):
        Toy(tmp_path, SCHEDULE).run(StopsAfter(step), done.append)
    assert done == list(range(1, step + 1))
    assert list(files(tmp_path)) == [STATE]
    toy = Toy(tmp_path, SCHEDULE)
    toy.run(Quiet(), done.append)
    toy.training.finish(toy.net.state_dict())
    assert done == list(range(1, 28))
    assert made(tmp_path) == undisturbed


def test_stopped_again_and_again_it_ends_in_the_same_bytes(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    for _ in range(5):
        with pytest.raises(Interrupted):
            Toy(tmp_path, SCHEDULE).run(StopsAfter(4))
    toy = Toy(tmp_path, SCHEDULE)
    assert toy.training.step == 20
    toy.run(Quiet())
    toy.training.finish(toy.net.state_dict())
    assert made(tmp_path) == undisturbed


def test_killed_it_goes_on_from_its_last_save_and_ends_in_the_same_bytes(
    tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(step: int) -> Tensor:
        if step == 15:
            monkeypatch.setattr(loop, "SAVE_SECONDS", 1e9)
        if step == 19:
            raise Killed
        return torch.tensor(0.0)

    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with pytest.raises(Killed):
        Toy(tmp_path, SCHEDULE, kill).run(Quiet())
    toy = Toy(tmp_path, SCHEDULE)
    assert toy.training.step == 15
    toy.run(Quiet())
    toy.training.finish(toy.net.state_dict())
    assert made(tmp_path) == undisturbed


def test_asked_to_stop_when_the_last_step_is_done_it_is_done(tmp_path: Path) -> None:
    toy = Toy(tmp_path, SCHEDULE)
    toy.run(StopsAfter(27))
    assert toy.training.step == 27


def test_between_saves_nothing_is_written(tmp_path: Path) -> None:
    Toy(tmp_path, SCHEDULE).run(Quiet())
    assert files(tmp_path) == {}


def test_facts_and_kept_tensors_survive_a_stop(tmp_path: Path) -> None:
    toy = Toy(tmp_path, SCHEDULE)
    toy.training.facts, toy.training.kept = {"best": 0.5, "best_step": 3}, {"a.b": torch.arange(3.0)}
    with pytest.raises(Interrupted):
        toy.run(StopsAfter(4))
    again = Toy(tmp_path, SCHEDULE).training
    assert again.facts == {"best": 0.5, "best_step": 3} and again.kept["a.b"].tolist() == [0, 1, 2]
    assert again.seconds == pytest.approx(toy.training.seconds) and again.seconds > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_stopped_inside_a_window_on_a_gpu_it_goes_on(tmp_path: Path) -> None:
    def run(watcher: Quiet) -> Training:
        net = nn.Linear(2, 1).cuda()
        training = Training("it", tmp_path, SCHEDULE, {"net": net}, adamw(SCHEDULE, [(net, 1.0)]))
        training.run(lambda step: {"loss": torch.ones((), device="cuda")}, watcher)
        return training

    with pytest.raises(Interrupted):
        run(StopsAfter(3))
    assert run(Quiet()).step == 27


# Not finite.


def nan_at(bad: int, value: float = math.nan) -> Callable[[int], Tensor]:
    return lambda step: torch.tensor(value if step == bad else 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("bad", [0, 4, 9, 10, 26])
def test_a_loss_that_is_not_finite_ends_with_its_step_its_rate_and_no_checkpoint(
    tmp_path: Path, bad: int, value: float
) -> None:
    toy = Toy(tmp_path, SCHEDULE, nan_at(bad, value))
    with pytest.raises(RunFailed) as error:
        toy.run(Quiet())
    said = str(error.value)
    assert f"the loss of the toy became {value} at step {bad} " in said
    assert f"(learning rate {SCHEDULE.rate(bad):.2e})" in said and "none yet" in said
    assert toy.training.step <= bad + WINDOW and files(tmp_path) == {}


def test_a_nan_names_the_last_good_checkpoint_which_stays(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        Toy(tmp_path, SCHEDULE).run(StopsAfter(12))
    before = files(tmp_path)
    toy = Toy(tmp_path, SCHEDULE, nan_at(14))
    with pytest.raises(RunFailed) as error:
        toy.run(Quiet())
    assert "at step 14 " in str(error.value) and f"step 12 in {tmp_path / STATE}" in str(error.value)
    assert files(tmp_path) == before


def test_a_nan_is_never_saved_as_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with pytest.raises(RunFailed, match=r"at step 3 .* step 3 in"):
        Toy(tmp_path, SCHEDULE, nan_at(3)).run(Quiet())
    tensors, facts = checkpoint.read(tmp_path / STATE)
    assert facts["step"] == 3 and all(torch.isfinite(t).all() for t in tensors.values())


def test_asked_to_stop_on_a_nan_it_fails_and_does_not_save(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="at step 2 "):
        Toy(tmp_path, SCHEDULE, nan_at(2)).run(StopsAfter(4))
    assert files(tmp_path) == {}


# The same through the real trainings.


def feed(
    pack: Path, rows: slice, *, masks: bool = False, sectors: bool = False, labels: bool = True
) -> Feed:  # fmt: skip
    opened = Pack(pack)
    parts, hidden = [(opened, np.arange(opened.count)[rows])], [] if labels else [opened]
    return Feed(parts, SIZE, CPU.device, masks=masks, sectors=sectors, unlabelled=hidden)


class Draws(Loss):
    """Draws from the global generator in every step, and hangs on its teacher."""

    teacher = (0.5, 1.0)
    built: ClassVar[list[Draws]] = []

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.began = [p.clone() for p in self.teacher_encoder.parameters()]
        self.built.append(self)

    def objective(self, out: Out, batch: Batch) -> Tensor:
        target = out.teacher_maps[1][-1].mean((2, 3)).float()
        return (out.features[0] - target + torch.randn_like(target)).square().mean()


DRAWS = Entry("loss", "draws", Draws, "", "", "tests", "")


def run_pretrain(
    folder: Path, pack: Path, loss: str, watcher: Quiet, seed: int = 0, rows: slice = slice(0, 20), labels: bool = True
) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    known = registry()
    entry, recipe = DRAWS if loss == "draws" else known.get("loss", loss), known.get("augmentation", "freq")
    return pretrain(
        title="it", folder=folder, part=Part(entry, dict(entry.options)), steps=(Part(recipe, dict(recipe.options)),),
        network=build_network(known.get("backbone", "unet-tiny"), {}, SIZE, seed),
        feed_of=lambda sectors: feed(pack, rows, sectors=sectors, labels=labels),
        schedule=Schedule(12, 6, 1e-3, 1e-4, 0.1), compute=CPU, seed=seed, size=SIZE, watcher=watcher,
    )  # fmt: skip


def run_finetune(
    folder: Path, pack: Path, watcher: Quiet, inner: bool = True, protocol: Segment | None = None
) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    known = registry()
    return finetune(
        title="it", folder=folder, network=build_network(known.get("backbone", "unet-tiny"), {}, SIZE, 0),
        protocol=protocol or Segment(), feed=feed(pack, slice(0, 12), masks=True),
        inner=feed(pack, slice(12, 18), masks=True) if inner else None,
        schedule=Schedule(12, 6, 3e-3, 1e-4, 0.1), compute=CPU, seed=0, size=SIZE, watcher=watcher,
    )  # fmt: skip


def facts_but_cost(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in ("device_seconds", "peak_mib")}


@pytest.mark.parametrize("loss", ["rcl", "moco", "draws"])
def test_a_pretraining_stopped_and_gone_on_with_ends_in_the_same_bytes(
    tmp_path: Path, tiny_pack: Path, loss: str
) -> None:
    whole = run_pretrain(tmp_path / "whole", tiny_pack, loss, Quiet())
    with pytest.raises(Interrupted):
        run_pretrain(tmp_path / "parts", tiny_pack, loss, StopsAfter(7))
    torch.rand(5), np.random.rand(5)
    parts = run_pretrain(tmp_path / "parts", tiny_pack, loss, Quiet())
    assert made(tmp_path / "whole") == made(tmp_path / "parts")
    assert facts_but_cost(whole) == facts_but_cost(parts)
    assert whole["images_seen"] == 72 and whole["pixels_seen"] == 72 * 2 * SIZE**2
    tensors = checkpoint.read(tmp_path / "whole" / "weights.safetensors")[0]
    assert all(name.startswith("encoder.") for name in tensors)


def test_a_pretraining_moves_the_teacher(tmp_path: Path, tiny_pack: Path) -> None:
    run_pretrain(tmp_path, tiny_pack, "draws", Quiet())
    loss = Draws.built[-1]
    pairs = list(zip(loss.began, loss.teacher_encoder.parameters(), strict=True))
    assert pairs and not any(torch.equal(before, after) for before, after in pairs)


def test_a_loss_saw_the_labels_that_it_was_shown(tmp_path: Path, tiny_pack: Path) -> None:
    said = [
        run_pretrain(tmp_path / f"{loss}{labels}", tiny_pack, loss, Quiet(), labels=labels)["pretrain_labels"]
        for loss, labels in (("supcon", True), ("supcon", False), ("simclr", True))
    ]
    assert said == ["all", "none", "none"]


def test_one_image_is_nothing_to_compare(tmp_path: Path, tiny_pack: Path) -> None:
    with pytest.raises(UsbenchError, match=r"'simclr' needs two items or more, and the pretraining data hold one"):
        run_pretrain(tmp_path, tiny_pack, "simclr", Quiet(), rows=slice(0, 1))


def test_another_seed_is_another_pretraining(tmp_path: Path, tiny_pack: Path) -> None:
    for seed in (0, 1):
        run_pretrain(tmp_path / str(seed), tiny_pack, "simclr", Quiet(), seed)
    assert (tmp_path / "0" / "curve.csv").read_bytes() != (tmp_path / "1" / "curve.csv").read_bytes()


def test_a_fine_tune_stopped_and_gone_on_with_ends_in_the_same_bytes(tmp_path: Path, tiny_pack: Path) -> None:
    whole = run_finetune(tmp_path / "whole", tiny_pack, Quiet())
    with pytest.raises(Interrupted):
        run_finetune(tmp_path / "parts", tiny_pack, StopsAfter(8))
    parts = run_finetune(tmp_path / "parts", tiny_pack, Quiet())
    assert made(tmp_path / "whole") == made(tmp_path / "parts")
    assert facts_but_cost(whole) == facts_but_cost(parts)
    assert whole["selection"] == "inner" and 1 <= whole["chosen_step"] <= 12
    assert whole["dice_inner"] >= whole["dice_inner_last"]


def test_the_weights_of_a_fine_tune_are_those_of_the_chosen_step(tmp_path: Path, tiny_pack: Path) -> None:
    class FirstIsBest(Segment):
        """Each look at inner validation scores below the one before."""

        looks = 0

        def adapt(self, network: Network) -> nn.Module:
            self.network = network
            return network

        def inner(self, output: Tensor, batch: Labelled) -> Tensor:
            self.looks += 1
            if self.looks == 1:
                self.first = {name: value.clone() for name, value in self.network.state_dict().items()}
            return torch.full((len(output),), -float(self.looks))

    protocol = FirstIsBest()
    facts = run_finetune(tmp_path / "first", tiny_pack, Quiet(), protocol=protocol)
    assert protocol.looks == 12 and facts["chosen_step"] == 1
    assert facts["dice_inner"] == -1 and facts["dice_inner_last"] == -12
    kept = checkpoint.read(tmp_path / "first" / "weights.safetensors")[0]
    assert all(torch.equal(value, protocol.first[name]) for name, value in kept.items())


def test_the_inner_score_of_the_weights_is_the_one_that_was_reported(tmp_path: Path, tiny_pack: Path) -> None:
    facts = run_finetune(tmp_path, tiny_pack, Quiet())
    built = build_network(registry().get("backbone", "unet-tiny"), {}, SIZE, 0)
    built.load_state_dict(checkpoint.read(tmp_path / "weights.safetensors")[0])
    score = inner_score(CPU.place(built), Segment(), feed(tiny_pack, slice(12, 18), masks=True), SIZE, CPU)
    assert score == pytest.approx(facts["dice_inner"], abs=1e-6)


def test_a_fine_tune_from_files_is_chosen_and_ends_as_one_from_memory(
    tmp_path: Path, tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for mib in ("1000", "0"):
        monkeypatch.setenv(room.SETTING, mib)
        assert feed(tiny_pack, slice(0, 12), masks=True).streams == (mib == "0")
        found.append((facts_but_cost(run_finetune(tmp_path / mib, tiny_pack, Quiet())), made(tmp_path / mib)))
    assert found[0] == found[1] and found[0][0]["selection"] == "inner"


def test_without_inner_validation_the_last_step_counts(tmp_path: Path, tiny_pack: Path) -> None:
    facts = run_finetune(tmp_path, tiny_pack, Quiet(), inner=False)
    assert facts["selection"] == "last" and facts["chosen_step"] == 12 and math.isnan(facts["dice_inner"])


def test_checkpoints_take_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loop.save_interval(0.01) == loop.SAVE_SECONDS
    assert loop.save_interval(1.0) == pytest.approx(1.0 / loop.SAVE_SHARE)
    assert loop.save_interval(1e3) == loop.LONGEST * loop.SAVE_SECONDS  # so much work is lost at most
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    assert loop.save_interval(1.0) == 0


def test_a_checkpoint_that_is_cut_is_one_sentence_whose_mend_helps(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        Toy(tmp_path, SCHEDULE).run(StopsAfter(12))
    state = tmp_path / STATE
    state.write_bytes(state.read_bytes()[:-9])
    with pytest.raises(UsbenchError) as error:
        Toy(tmp_path, SCHEDULE)
    said = str(error.value)
    assert said.startswith(f"{state} is not a whole safetensors file (") and "save the weights" not in said
    assert said.endswith("): delete it and run the same command again, and this training begins anew.")
    state.unlink()
    assert Toy(tmp_path, SCHEDULE).training.step == 0
