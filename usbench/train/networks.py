"""The network of a run, from its named start: random, ImageNet weights out of the cache, or a safetensors file."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from usbench.contracts import Network
from usbench.draws import seed_globals
from usbench.errors import Refused, UsbenchError
from usbench.hooks import Entry
from usbench.train import checkpoint

PROBE = 32  # pixels a side, or the next multiple of the stride
CLASSIFIER = re.compile(r"^(fc|classifier|head|last_linear)\.|num_batches_tracked$")


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor of a weights file."""

    loaded: int
    adapted: tuple[str, ...] = ()  # three input channels summed into one
    unexpected: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.loaded} tensors loaded, {len(self.adapted)} adapted, {len(self.unexpected)} not used"


def build_network(entry: Entry, options: dict[str, object], size: int, seed: int) -> Network:
    """The network with random weights; the same for every row of a seed."""
    seed_globals(seed, "network")
    network = entry.build(**options)
    if not isinstance(network, Network):
        raise Refused(f"backbone '{entry.name}' built a {type(network).__name__}: it must build a usbench.Network.")
    if size % network.stride:
        below = max(1, size // network.stride) * network.stride
        raise Refused(
            f"backbone '{entry.name}' cannot take {size} px: the size must be a multiple of {network.stride}, "
            f"for example --size {below}."
        )
    _check_shapes(entry, network, size)
    return network


@torch.no_grad()
def _check_shapes(entry: Entry, network: Network, size: int) -> None:
    """Refuse a network that does not make what the contract says, before anything is trained.

    A small image does, but for encoders that take images of one size only.
    """
    training = network.training
    network.eval()
    side, maps = _probe(entry, network, size)
    if not isinstance(maps, list | tuple) or any(getattr(level, "ndim", 0) != 4 for level in maps):
        raise Refused(f"the encoder of backbone '{entry.name}' must give a list of maps (N, channels, H, W).")
    if maps[-1].shape[1] != network.dim:
        raise Refused(
            f"backbone '{entry.name}' says dim={network.dim}, and its deepest map has {maps[-1].shape[1]} channels."
        )
    logits = network.head(network.decoder(maps))
    if logits.shape != (1, 1, side, side):
        raise Refused(
            f"backbone '{entry.name}' makes {tuple(logits.shape)} of an image of {side} px: "
            f"it must make one logit a pixel, {(1, 1, side, side)}."
        )
    network.train(training)


def _probe(entry: Entry, network: Network, size: int) -> tuple[int, Any]:
    """The maps of an empty image, and its side."""
    side = network.stride * math.ceil(PROBE / network.stride)
    with contextlib.suppress(AssertionError, RuntimeError, ValueError):  # not of this size: that of the run decides
        return side, network.encoder(torch.zeros(1, 1, side, side))
    try:
        return size, network.encoder(torch.zeros(1, 1, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise Refused(
            f"backbone '{entry.name}' cannot take images of {size} px ({why}): give another --size or --backbone."
        ) from error


def start_from(network: Network, init: str) -> LoadReport | None:
    """Give the encoder its named starting weights; None for random ones."""
    if init == "random":
        return None
    path = imagenet_file(network.timm_name) if init == "imagenet" else Path(init)
    return load_encoder(network, checkpoint.read(path)[0], str(path))


def imagenet_file(timm_name: str) -> Path:
    """The published weights in the local cache; never asks the network."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    configuration = timm.get_pretrained_cfg(timm_name) if timm_name and timm.is_model(timm_name) else None
    if configuration is None or not configuration.hf_hub_id:
        raise UsbenchError(
            f"no ImageNet weights are published for the encoder '{timm_name}': use --init random or a file."
        )
    tag = f".{configuration.tag}" if configuration.tag else ""
    repository = f"{configuration.hf_hub_id.rstrip('/')}"
    repository = repository if repository.count("/") and not repository.endswith("timm") else f"timm/{timm_name}{tag}"
    found = try_to_load_from_cache(repository, "model.safetensors")
    if not isinstance(found, str):
        raise UsbenchError(
            f"the ImageNet weights of '{timm_name}' are not in the cache of this machine: "
            f"run 'hf download {repository} model.safetensors' where there is a network, or name a file with --init."
        )
    return Path(found)


@torch.no_grad()
def load_encoder(network: Network, tensors: dict[str, Tensor], source: str) -> LoadReport:
    """Load an encoder's weights whole; a file that lacks any of its tensors, or has other shapes, is refused."""
    own = network.encoder.state_dict()
    given = {
        _strip(name): value for name, value in tensors.items() if not name.startswith(("decoder.", "segmentation_"))
    }
    stripped = {_strip(name): name for name in own}
    adapted: list[str] = []
    missing = sorted(k for k in stripped.keys() - given.keys() if not CLASSIFIER.search(k))
    if missing:
        raise UsbenchError(
            f"{source} does not fit the encoder: {len(missing)} of its {len(own)} tensors are missing, "
            f"for example '{missing[0]}'; name weights of the same architecture."
        )
    for name, full in stripped.items():
        if name not in given:
            continue
        value = given[name]
        if value.ndim == 4 and own[full].ndim == 4 and value.shape[1] == 3 and own[full].shape[1] == 1:
            value = value.sum(1, keepdim=True)
            adapted.append(name)
        if value.shape != own[full].shape:
            raise UsbenchError(
                f"{source} does not fit the encoder: '{name}' is {tuple(value.shape)}, not {tuple(own[full].shape)}."
            )
        if not torch.isfinite(value).all():
            raise UsbenchError(
                f"{source} holds weights that are not finite, in '{name}': name a file without NaN or inf."
            )
        own[full].copy_(value)
    unexpected = sorted(k for k in given.keys() - stripped.keys() if not CLASSIFIER.search(k))
    return LoadReport(sum(name in given for name in stripped), tuple(adapted), tuple(unexpected))


def _strip(name: str) -> str:
    """A tensor's name without the wrappers that smp and this harness put around an encoder."""
    for prefix in ("encoder.", "model."):
        name = name.removeprefix(prefix)
    return name
