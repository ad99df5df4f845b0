"""The five hooks that a plugin may implement."""

from __future__ import annotations

from collections.abc import Callable

import pluggy

GROUP = "usbench"
KINDS = ("loss", "augmentation", "backbone", "dataset", "protocol")
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Register = Callable[..., None]


class Hooks:
    """What a plugin may implement. Each hook hands a `register` function; call it as often as you like."""

    @hookspec
    def usbench_losses(self, register: Register) -> None:
        "Register pretraining losses: subclasses of usbench.Loss; factory None means a baseline without pretraining."

    @hookspec
    def usbench_augmentations(self, register: Register) -> None:
        "Register augmentations: factories of one usbench.Augmentation, or of a list of them (a recipe)."

    @hookspec
    def usbench_backbones(self, register: Register) -> None:
        "Register segmentation networks: factories of a usbench.Network."

    @hookspec
    def usbench_datasets(self, register: Register) -> None:
        "Register data sets: subclasses of usbench.Dataset."

    @hookspec
    def usbench_protocols(self, register: Register) -> None:
        "Register protocols: subclasses of usbench.Protocol."


HOOK_OF = dict(zip(KINDS, [n for n in vars(Hooks) if n.startswith("usbench_")], strict=True))
