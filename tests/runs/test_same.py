"""Nothing is computed under a key that names other code or other starting weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from usbench import source
from usbench.errors import RunFailed, UsbenchError
from usbench.hooks import Registry
from usbench.runs import same
from usbench.runs.plan import make_plan
from usbench.runs.stage import Plan
from usbench.runs.stages import Stages, full_float32
from usbench.runs.store import Store
from usbench.spec import resolve

LOSS = """
from usbench import Loss, hookimpl

class Mine(Loss):
    def objective(self, out, batch):
        return out.z.pow(2).mean()

@hookimpl
def usbench_losses(register):
    register("mine", Mine, summary="a loss to edit")
"""


class Quiet:
    stopping = False

    def step(self, *_: object) -> None: ...


@pytest.fixture
def loose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin in a file; nothing was used yet."""
    monkeypatch.setattr(source, "_used", {})
    monkeypatch.setattr(same, "_loaded", {})
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / "mine.py"
    path.write_text(LOSS)
    return path


def planned(installed: Registry, settings: dict[str, Any], **too: Any) -> Plan:
    wanted = {**settings, "labels": [100], "seeds": [0], **too}
    return make_plan(installed, resolve(wanted), lambda *_: None)


def begin(plan: Plan, known: Registry, place: Path) -> None:
    """The first stage, until it is refused or done."""
    place.mkdir()
    Stages(Store(place), known).attempt(plan.stages[0], place, Quiet())


def test_code_that_is_edited_after_planning_computes_nothing_under_the_old_key(
    loose: Path, installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    installed.load_folder(loose.parent)
    plan = planned(installed, tiny_settings, loss="mine")
    loose.write_text(LOSS.replace("pow(2)", "pow(4)"))
    with pytest.raises(RunFailed, match=r"the loss 'mine' \(.*mine.py\) is not the code that was planned with"):
        begin(plan, installed, tmp_path / "o")


def test_code_that_was_used_before_it_is_edited_goes_on_as_it_was_loaded(
    loose: Path, installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    installed.load_folder(loose.parent)
    identity = planned(installed, tiny_settings, loss="mine").stages[0].identity
    same.check_code(identity, installed)
    loose.write_text(LOSS.replace("pow(2)", "pow(4)"))
    same.check_code(identity, installed)


def test_a_process_that_outlives_the_planning_computes_nothing_with_code_it_loaded_before(
    loose: Path, installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    installed.load_folder(loose.parent)
    same.note_code(installed)  # a worker loads it, and then somebody edits and plans anew
    loose.write_text(LOSS.replace("pow(2)", "pow(4)"))
    identity = planned(installed, tiny_settings, loss="mine").stages[0].identity
    with pytest.raises(RunFailed, match="is not the code that was planned with"):
        same.check_code(identity, installed)


def test_starting_weights_that_are_replaced_after_planning_are_refused(
    installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "start.safetensors"
    save_file({"w": torch.zeros(2)}, path)
    plan = planned(installed, tiny_settings, loss="simclr", init=str(path))
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(RunFailed, match=r"start.safetensors was changed after the run was planned"):
        begin(plan, installed, tmp_path / "o")


def test_a_store_has_results_of_the_same_imagenet_weights_only(
    installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    network = installed.get("backbone", "unet-tiny").build()
    weights, found = network.encoder.state_dict(), tmp_path / "model.safetensors"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(found))
    plan, store = planned(installed, tiny_settings, loss="none", init="imagenet"), Store(tmp_path / "o").open()

    def facts() -> dict[str, Any]:
        (part := tmp_path / "part").mkdir(exist_ok=True)
        return Stages(store, installed).attempt(plan.stages[0], part, Quiet())

    found.write_bytes(b"cut short")
    with pytest.raises(UsbenchError, match="is not a whole safetensors file"):
        facts()
    save_file({name: value.contiguous() for name, value in weights.items()}, found)
    first = facts()["start"]
    assert facts()["start"] == first
    save_file({name: value.contiguous() * 1.5 for name, value in weights.items()}, found)
    with pytest.raises(RunFailed, match=rf"model\.safetensors \(SHA-256 \w+\) are not those .* \(SHA-256 {first}\)"):
        facts()
    (store.root / "starts" / network.timm_name).unlink()
    assert facts()["start"] != first


@pytest.mark.parametrize(
    ("device", "precision", "allowed"), [("cuda", "float32", False), ("cuda", "bf16", True), ("cpu", "float32", True)]
)
def test_a_float32_stage_on_a_gpu_rounds_nothing_to_tf32(device: str, precision: str, allowed: bool) -> None:
    products = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]
    before = [product.fp32_precision for product in products]
    try:
        for product in products:
            product.fp32_precision = "tf32"
        with full_float32({"device": device, "precision": precision}):
            assert [product.fp32_precision for product in products] == ["tf32" if allowed else "ieee"] * 3
        assert [product.fp32_precision for product in products] == ["tf32"] * 3
        torch.backends.fp32_precision = "tf32"  # after which the older flags cannot be read
        with full_float32({"device": device, "precision": precision}):
            pass
    finally:
        torch.backends.fp32_precision = "none"
        for product, was in zip(products, before, strict=True):
            product.fp32_precision = was
