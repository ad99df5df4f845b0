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
    """The last of the equal blocks that the last stage is a row of, and what follows them; else all of the stage."""
    stage = last_stage(network)
    row = stage[0]
    while True:
        parts = [part for part in row.children() if any(True for _ in part.parameters())]
        if isinstance(row, ROW) and len(parts) > 1 and type(parts[-1]) is type(parts[-2]):
            return [parts[-1], *stage[1:]]
        if not parts or not isinstance(parts[-1], ROW):
            return stage
        row = parts[-1]


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
