"""Out of memory: one sentence with what would fit, and with --auto-batch the same training in less."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from usbench.errors import Interrupted, OutOfMemory
from usbench.hooks import Registry
from usbench.runs.memory import AUTO
from usbench.runs.plan import make_plan
from usbench.runs.stage import Stage
from usbench.runs.stages import Stages
from usbench.runs.store import Store
from usbench.spec import resolve
from usbench.train import checkpoint, finetune, pretrain
from usbench.train.sparing import blocks

pytestmark = pytest.mark.usefixtures("one_thread")

Room = Callable[..., None]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """`room(4, 8, kind=…)`: a device with room for so many images a step, and for more where little is kept."""
    monkeypatch.setattr(Stages, "try_out", Stages.attempt)  # in this process, where there is so little
    plainly = {module: module.Steps.learn for module in (pretrain, finetune)}

    def limit(plain: int, lean: int = 0, *, kind: str, after: int = 0) -> None:
        module, name = {"pretrain": (pretrain, "loss"), "finetune": (finetune, "model")}[kind]
        learn, steps = plainly[module], 0

        def learn_in_little(self: Any, batch: Any) -> Any:
            nonlocal steps
            trained: nn.Module = getattr(self, name)
            network = trained.network if kind == "pretrain" else trained
            sparing = any(hasattr(type(block).forward, "__wrapped__") for block in blocks(network))
            images = len(batch.views[0] if kind == "pretrain" else batch.images) // getattr(self, "parts", 1)
            steps += 1
            if images > (lean if sparing else plain) and steps > after:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return learn(self, batch)

        monkeypatch.setattr(module.Steps, "learn", learn_in_little)

    return limit


class Watch:
    """Never stops."""

    stopping = False

    def step(self, *facts: Any) -> None: ...


def stage_of(registry: Registry, settings: dict[str, Any], kind: str, **changes: Any) -> Stage:
    given = {"loss": "simclr", "seeds": [0], **settings, **changes}
    return next(s for s in make_plan(registry, resolve(given), lambda *_: None).stages if s.kind == kind)


def do(registry: Registry, stage: Stage, folder: Path, watch: Any = None) -> dict[str, Any]:
    folder.mkdir(parents=True)
    alone = Stage(**{**vars(stage), "places": {**stage.places, "pretrained": None}, "needs": ()})
    return Stages(Store(folder.parent), registry).do(alone, folder, watch or Watch())


def test_what_runs_out_says_which_batch_would_fit_and_stops_nothing_else(
    usbench: Callable[..., Any], room: Room, tiny: list[str], tmp_path: Path
) -> None:
    room(4, 8, kind="pretrain")
    said = usbench("run", "--loss", "simclr", *tiny, "--out", tmp_path)
    assert said.code == 1
    assert said.one_sentence() == (
        "usbench: pretrain simclr, seed 0 ran out of memory on cpu at batch 8 and 32 px; batch 4 fits: give "
        "--auto-batch, with which it fits, or give --set pretrain.batch=4 to all rows that are compared; "
        "6 stages that need it were left out."
    )
    assert "none" in said.out, "the baselines are done"
    again = usbench("run", "--loss", "simclr", *tiny, "--out", tmp_path, "--set", "pretrain.batch=4")
    assert again.code == 0


def test_auto_batch_comes_to_the_same_bytes_under_the_same_key(
    usbench: Callable[..., Any], room: Room, tiny: list[str], tmp_path: Path
) -> None:
    words = ["run", "--loss", "simclr", *tiny, "--labels", "100", "--out"]
    assert usbench(*words, tmp_path / "plain").code == 0
    room(4, 8, kind="pretrain")
    assert usbench(*words, tmp_path / "lean", "--auto-batch").code == 0
    plain, lean = (sorted((tmp_path / name / "stages").iterdir()) for name in ("plain", "lean"))
    assert [f.name for f in plain] == [f.name for f in lean]
    for one, other in zip(plain, lean, strict=True):
        facts = json.loads((other / "record.json").read_text())["facts"]
        assert facts.get(AUTO) == ("activations recomputed" if other.name.startswith("pretrain") else None)
        for name in ("weights.safetensors", "scores.csv", "masks.safetensors"):
            assert not (one / name).exists() or (one / name).read_bytes() == (other / name).read_bytes()


def test_a_suite_takes_it_too_and_only_what_does_not_fit_fails(
    usbench: Callable[..., Any], room: Room, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    base = {**tiny_settings, "labels": [100]}
    lines = [f"{k} = {json.dumps(v)}" for k, v in base.items() if not isinstance(v, dict)]
    lines += [f"{k}.{n} = {w}" for k, v in base.items() if isinstance(v, dict) for n, w in v.items()]
    losses = '[[runs]]\nover = { loss = ["simclr", "none"] }\n'
    (tmp_path / "s.toml").write_text("[base]\n" + "\n".join(lines) + "\n" + losses)
    room(0, 0, kind="pretrain")
    said = usbench("suite", "run", tmp_path / "s.toml", "--out", tmp_path / "runs", "--auto-batch")
    assert said.code == 1 and "also with activations recomputed; not even batch 2 fits: take a smaller" in said.err
    assert "none" in said.out
    room(0, 8, kind="pretrain")
    assert usbench("suite", "run", tmp_path / "s.toml", "--out", tmp_path / "runs", "--auto-batch").code == 0


@pytest.mark.parametrize(
    ("plain", "lean", "auto", "words"),
    [
        (2, 2, False, "; batch 2 fits: --auto-batch does not help; give --set pretrain.batch=2 to all"),
        (0, 8, False, "; without --auto-batch not even batch 2 fits: give it."),
        (0, 0, False, "; neither --auto-batch nor batch 2 makes it fit: take a smaller --size or --backbone"),
        (0, 4, True, ", also with activations recomputed; batch 4 fits: give --set pretrain.batch=4 to all"),
        (4, 0, True, ", also with activations recomputed; not even batch 2 fits: take a smaller --size"),
    ],
)
def test_the_sentence_is_true(
    installed: Registry, room: Room, tiny_settings: dict[str, Any], tmp_path: Path, plain: int, lean: int, auto: bool,
    words: str,
) -> None:  # fmt: skip
    stage = stage_of(installed, tiny_settings, "pretrain", auto_batch=auto)
    room(plain, lean, kind="pretrain")
    with pytest.raises(OutOfMemory) as error:
        do(installed, stage, tmp_path / "stage")
    assert f"ran out of memory on cpu at batch 8 and 32 px{words}" in str(error.value)
    assert error.value.__context__ is None, "nothing holds on to what filled the memory"
    assert not list((tmp_path / "stage").iterdir())


def test_what_runs_out_in_the_middle_goes_on_from_its_checkpoint_to_the_same_bytes(
    installed: Registry, room: Room, tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usbench.train.loop.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("usbench.train.loop.SAVE_SHARE", 1.0)
    changes = {"loss": "byol", "pretrain": {"steps": 12, "batch": 8}}
    do(installed, stage_of(installed, tiny_settings, "pretrain", **changes), tmp_path / "plain")
    room(4, 8, kind="pretrain", after=7)
    stage = stage_of(installed, tiny_settings, "pretrain", auto_batch=True, **changes)
    assert do(installed, stage, tmp_path / "lean")[AUTO] == "activations recomputed"
    for name in ("weights.safetensors", "curve.csv"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "lean" / name).read_bytes()


def test_a_fine_tune_without_batch_norms_takes_its_gradient_in_parts(
    installed: Registry, room: Room, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"backbone": "vit-tiny:dim=32,depth=1", "loss": "none", "auto_batch": True}
    stage = stage_of(installed, tiny_settings, "finetune", **changes)
    do(installed, stage, tmp_path / "plain")
    room(1, 1, kind="finetune")
    assert do(installed, stage, tmp_path / "lean")[AUTO] == "activations recomputed and the gradient in 4 parts"
    one, other = (checkpoint.read(tmp_path / name / "weights.safetensors")[0] for name in ("plain", "lean"))
    assert all(torch.allclose(one[name], other[name], atol=2e-4) for name in one)


def test_a_fine_tune_with_batch_norms_is_refused_parts_and_says_so(
    installed: Registry, room: Room, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    room(2, 2, kind="finetune")
    stage = stage_of(installed, tiny_settings, "finetune", loss="none", auto_batch=True)
    with pytest.raises(
        OutOfMemory, match=r"also with activations recomputed, and with less it cannot be done .*stat"
    ) as e:
        do(installed, stage, tmp_path / "stage")
    assert "batch 2 fits: give --set finetune.batch=2 to all rows" in str(e.value)


def test_a_batch_of_the_protocols_own_is_named_as_its_option(
    installed: Registry, room: Room, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    room(4, 4, kind="finetune")
    stage = stage_of(installed, tiny_settings, "finetune", loss="none", protocol="pocus:batch=8,lr=0.001")
    with pytest.raises(OutOfMemory, match=r"batch 8 and 32 px.*batch 4 fits.*--protocol pocus:batch=4,lr=0.001 to"):
        do(installed, stage, tmp_path / "stage")


SHORT = """
import torch
from usbench import Loss, hookimpl

class Short(Loss):
    "Wants more memory than there is for more than four views."

    def objective(self, out, batch):
        if len(out.maps[0][-1]) > 4:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return out.features[0].square().mean()

@hookimpl
def usbench_losses(register):
    register("short", Short, summary="for a test", reference="none")
"""


def test_on_a_cpu_what_fits_is_tried_in_processes_of_their_own(
    usbench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "short.py").write_text(SHORT)
    words = ["--plugins-dir", tmp_path / "plugins", "run", "--loss", "short", *tiny, "--labels", "100"]
    said = usbench(*words, "--out", tmp_path / "runs", "--fail-fast")
    assert said.code == 1
    assert "at batch 8 and 32 px; batch 4 fits: --auto-batch does not help; give --set pretrain.batch=4" in said.err
    assert not list((tmp_path / "runs" / "stages").glob("pretrain-*"))


def test_who_asks_to_stop_does_not_wait_for_the_search(
    installed: Registry, room: Room, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    class Stops(Watch):
        stopping = True

    room(4, 4, kind="pretrain", after=1)
    with pytest.raises(Interrupted):
        do(installed, stage_of(installed, tiny_settings, "pretrain"), tmp_path / "stage", Stops())


def test_a_test_that_runs_out_names_no_batch(
    usbench: Callable[..., Any], tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def examine(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr("usbench.evaluate.testing.examine", examine)
    said = usbench("run", "--loss", "none", *tiny, "--labels", "100", "--out", tmp_path)
    assert said.code == 1
    assert "ran out of memory on cpu at 32 px: take a smaller --size or --backbone" in said.out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_with_too_little_memory_it_fits_with_auto_batch_and_says_what_fits_without(
    installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    changes = {
        "device": "cuda", "precision": "float32", "backbone": "unet-resnet50", "size": 64, "labels": [100],
        "pretrain": {"steps": 3, "batch": 256},
    }  # fmt: skip
    plain, auto = (stage_of(installed, {**tiny_settings, **changes}, "pretrain", auto_batch=a) for a in (False, True))
    needed = do(installed, plain, tmp_path / "plain")["peak_mib"]
    least = do(
        installed,
        stage_of(installed, {**tiny_settings, **changes, "pretrain": {"steps": 3, "batch": 2}}, "pretrain"),
        tmp_path / "least",
    )
    torch.cuda.empty_cache()
    room = (needed + least["peak_mib"]) / 2 * 2**20
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(
            OutOfMemory, match=r"on cuda at batch 256 and 64 px; batch (128|64|32) fits: give --auto-batch"
        ):
            do(installed, plain, tmp_path / "short")
        assert do(installed, auto, tmp_path / "lean")[AUTO] == "activations recomputed"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    one, other = (checkpoint.read(tmp_path / name / "weights.safetensors")[0] for name in ("plain", "lean"))
    assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-3, rtol=1e-2) for name in one)
