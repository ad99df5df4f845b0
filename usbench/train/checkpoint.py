"""Weights and training states as safetensors: whole, atomic, never pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from usbench.errors import UsbenchError
from usbench.whole import written


def write(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any] | None = None) -> None:
    """Write the tensors and the facts beside them; the file is there whole or not at all."""
    whole = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    try:
        with written(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode  # as every file of this user's has it
            save_file(whole, temporary, metadata={"usbench": json.dumps(facts or {})})
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(mode)  # the writer shuts everybody else out, and a store may be shared
    except SafetensorError as error:
        # The writer wraps the system's error (a full disk, say); say it as one.
        raise OSError(f"{path} could not be written: {error}") from error


def read(path: Path, mend: str = "save the weights as one") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the facts of a file; `mend` is what to do where it is none, for the sentence."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("usbench", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise UsbenchError(f"there is no file {path}: name a .safetensors file.") from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UsbenchError(f"{path} is not a whole safetensors file ({error}): {mend}.") from error


def _plain(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Tensors that hang on a module as plain attributes: some losses keep their state so."""
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, Tensor):
                yield f"{prefix}.{name}" if prefix else name, part, name, value


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Everything a module remembers: parameters, all buffers (memory banks are non-persistent), plain tensors."""
    found: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    found |= dict(module.named_buffers(remove_duplicate=False))
    return found | {name: value for name, _, _, value in _plain(module)}


@torch.no_grad()
def restore(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `tensors_of` took; memory layouts stay as they are, so the same arithmetic follows."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    if missing := parameters.keys() - tensors.keys():
        raise UsbenchError(f"the checkpoint does not fit this loss and network: '{min(missing)}' is missing.")
    device = next((p.device for p in parameters.values()), torch.device("cpu"))
    for name, value in tensors.items():
        if name in parameters:
            parameters[name].copy_(value)
            continue
        owner_name, _, attribute = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        present = getattr(owner, attribute, None)
        if isinstance(present, Tensor) and present.shape == value.shape:
            present.copy_(value)
        else:  # a bank that grew, or one that is made at the first step
            setattr(owner, attribute, value.to(device))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state, by the place of each parameter."""
    state = optimizer.state_dict()["state"]
    return {
        f"{place}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for place, values in state.items()
        for name, value in values.items()
    }


@torch.no_grad()
def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back the optimiser's state, in the memory layout of each parameter."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        place, _, key = name.partition(".")
        parameter = parameters[int(place)]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter).copy_(value)
        elif key != "step" or optimizer.defaults.get("fused"):
            value = value.to(parameter.device)
        optimizer.state[parameter][key] = value
