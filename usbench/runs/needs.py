"""What the plugins of a run ask for, and whether the packs and the backbone have it. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from usbench.data.pack import Pack
from usbench.errors import UsbenchError, listed
from usbench.hooks import Entry, Registry
from usbench.runs.sources import Sources


def check_needs(
    registry: Registry, sources: Sources, loss: Entry, steps: Sequence[Entry], protocol: Entry, backbone: Entry
) -> None:
    """Refuse a loss, an augmentation or a protocol that asks for what the packs or the backbone do not have."""
    _check_backbone(registry, loss, backbone)
    gives, trained = set(backbone.gives), sources.cohort.packs
    of_all = set.intersection(*(pack.capabilities() for pack in trained))
    _refuse_lacking(registry, protocol, of_all | gives, trained)
    pretrained = [pack for pack, _ in sources.pretrain]
    for entry in (loss, *steps):
        _refuse_lacking(registry, entry, sources.pretraining_offers() | gives, pretrained)


def check_devices(loss: Entry, devices: int, device: str, batch: int, found: int) -> None:
    """Refuse a pretraining that so many devices cannot share; imports torch where there are several."""
    if device == "cuda" and devices > found:
        raise UsbenchError(f"--devices {devices}: {found} CUDA devices are visible here; use --devices {found}.")
    if loss.factory is None:
        return
    if batch % devices:
        fits = [count for count in range(1, devices) if batch % count == 0]
        raise UsbenchError(
            f"--devices {devices} cannot share pretrain.batch={batch} evenly: use --devices {fits[-1]}, "
            f"or --set pretrain.batch={batch // devices * devices or devices}."
        )
    if not getattr(loss.resolve(), "distributed", True):
        raise UsbenchError(f"loss '{loss.name}' cannot be trained on several devices together: use --devices 1.")


def _refuse_lacking(registry: Registry, entry: Entry, has: set[str], packs: Sequence[Pack]) -> None:
    if lacking := [need for need in entry.needs if need not in has]:
        fits = [
            other.name
            for other in registry.entries(entry.kind)
            if other.factory is not None and set(other.needs) <= has
        ]
        there = set.union(*(pack.capabilities() for pack in packs))
        why = "does not have" if set(lacking) - there else "keeps to itself, since it is not trained on"
        raise UsbenchError(
            f"{entry.kind} '{entry.name}' needs {', '.join(lacking)}, which '{'+'.join(p.name for p in packs)}' "
            f"{why}; what fits: {listed(fits)}."
        )


def _check_backbone(registry: Registry, loss: Entry, backbone: Entry) -> None:
    """A need that some backbone meets is the backbone's to meet; every other one is the data's."""
    backbones = list(registry.entries("backbone"))
    wanted = [need for need in loss.needs if any(need in other.gives for other in backbones)]
    if lacking := [need for need in wanted if need not in backbone.gives]:
        fits = [other.name for other in backbones if set(wanted) <= set(other.gives)]
        raise UsbenchError(
            f"loss '{loss.name}' needs {', '.join(lacking)}, which backbone '{backbone.name}' does not give; "
            f"what fits: {listed(fits)}."
        )
