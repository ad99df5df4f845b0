"""The last stage of any encoder, what makes its deepest map of the map before it, and the last block of that."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from usbench import Network

ROW = nn.Sequential, nn.ModuleList


def last_stage(network: Network) -> list[nn.Module]:
    """The modules with parameters, in the order of their calls, from the last that made maps smaller to the end.

    Where none does, as in a vision transformer, the last of its equal blocks and what follows it. A module that is not
    called itself stands for its children; one that is called alone, for what it calls.
    """
    called = _called(network)
    module: nn.Module = network.encoder
    units = _units(module, called)
    while len(units) == 1:
        (module,) = units
        units = _units(module, called)
    units.sort(key=lambda unit: called[unit][0])
    sides = [called[unit][1] for unit in units]
    smaller = [i for i in range(1, len(units)) if sides[i] is not None and sides[i] < (_before(sides, i) or 0)]
    if smaller:
        return units[smaller[-1] :]
    if equal := [i for i in range(1, len(units)) if type(units[i]) is type(units[i - 1])]:
        return units[equal[-1] :]
    for place in reversed(range(len(units))):
        blocks = [unit for unit in units[place].children() if any(True for _ in unit.parameters())]
        if len(blocks) > 1 and len({type(unit) for unit in blocks}) == 1:
            return [blocks[-1], *units[place + 1 :]]
    raise ValueError(
        "the encoder does not show which part of it makes its deepest map, so its last stage and block have no "
        "meaning: use train=full or train=head, or another backbone"
    )


def last_block(network: Network) -> list[nn.Module]:
    """The last of the equal blocks that the last stage is a row of, and what follows it; else all of the stage."""
    stage = last_stage(network)
    for place in reversed(range(len(stage))):
        unit = stage[place]
        if place and _is_block(unit) and type(unit) is type(stage[place - 1]):
            return stage[place:]
        if (block := _end_of_row(unit)) is not None:
            return [block, *stage[place + 1 :]]
    if any(_parts(unit) for unit in stage):
        return stage
    raise ValueError(
        "the last stage of this encoder is not made of blocks, so train=last-block has no meaning: use train=last-stage"
    )


def _end_of_row(module: nn.Module) -> nn.Module | None:
    """The last of a module's equal blocks; a row may lie in a row, but in no block."""
    parts = _parts(module)
    alike = isinstance(module, ROW) or len({type(part) for part in parts}) == 1
    if alike and len(parts) > 1 and _is_block(parts[-1]) and type(parts[-1]) is type(parts[-2]):
        return parts[-1]
    rows = (_end_of_row(part) for part in reversed(parts) if isinstance(part, ROW))
    return next((block for block in rows if block is not None), None)


def _is_block(module: nn.Module) -> bool:
    return not isinstance(module, ROW) and bool(_parts(module))


def _parts(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.children() if any(True for _ in part.parameters())]


def _before(sides: list[int | None], place: int) -> int | None:
    return next((side for side in reversed(sides[:place]) if side is not None), None)


def _units(module: nn.Module, called: dict[nn.Module, Any]) -> list[nn.Module]:
    """The children with parameters, or for those that are not called themselves, theirs."""
    found: list[nn.Module] = []
    for child in module.children():
        if any(True for _ in child.parameters()):
            found += [child] if child in called else _units(child, called)
    return found


@torch.no_grad()
def _called(network: Network) -> dict[nn.Module, tuple[int, int | None]]:
    """Every module of the encoder that a forward calls → when it ends, and the side of the map it makes."""
    found: dict[nn.Module, tuple[int, int | None]] = {}

    def note(module: nn.Module, given: Any, made: Any) -> None:
        side = made.shape[-1] if isinstance(made, Tensor) and made.ndim == 4 else None
        found[module] = len(found), side

    modes = {module: module.training for module in network.encoder.modules()}
    hooks = [module.register_forward_hook(note) for module in network.encoder.modules()]
    weight = next(network.encoder.parameters())
    side = 2 * max(network.stride, 16)
    side += -side % network.stride
    try:
        network.encoder.eval()
        network.encoder(torch.zeros(1, 1, side, side, device=weight.device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return found
