"""A trained network out of its weights and its config; what does not fit, or is not finite, is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from usbench.contracts import Network, Protocol
from usbench.errors import UsbenchError
from usbench.hooks import registry
from usbench.share.config import CONFIG, ENCODER, NETWORK, Config, read_config
from usbench.train import checkpoint
from usbench.train.networks import load_encoder
from usbench.views import DEVIATION, MEAN

OURS, SMPS = "head.", "segmentation_head."  # what the last layer is called here and in segmentation-models-pytorch


@dataclass(frozen=True)
class Loaded:
    """A network ready to be used, on the CPU and in evaluation mode."""

    config: Config
    model: nn.Module
    protocol: Protocol


def build(config: Config, source: Path) -> tuple[Network, nn.Module, Protocol]:
    """The untrained network of a config, and what its protocol makes of it; `source` is named where that fails."""
    if (config.mean, config.deviation) != (MEAN, DEVIATION):
        raise UsbenchError(
            f"{source} wants an input of mean {config.mean:g} and deviation {config.deviation:g}, and this usbench "
            f"gives {MEAN:g} and {DEVIATION:g}: use the version that made it."
        )
    backbone = registry().get("backbone", config.backbone.name)
    part = registry().get("protocol", config.protocol.name)
    with torch.random.fork_rng(devices=[]):
        try:
            network = backbone.build(**backbone.parse(config.backbone.options))
        except (RuntimeError, MemoryError, OverflowError) as error:
            raise UsbenchError(f"{source} describes a network that cannot be built ({_short(error)}).") from None
        if not isinstance(network, Network):
            raise UsbenchError(f"backbone '{backbone.name}' built a {type(network).__name__}, no usbench.Network.")
        if config.size % network.stride:
            raise UsbenchError(f"{source} says {config.size} px, no multiple of the stride {network.stride}.")
        protocol = part.build(**part.parse(config.protocol.options))
        protocol.classes = tuple(config.classes)
        model = protocol.adapt(network)
    return network, model.eval(), protocol


def fill(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Put the weights into the model: all of them, of the right shapes, and finite."""
    own, known = model.state_dict(), checkpoint.tensors_of(model)
    if not any(name.startswith(SMPS) for name in known):
        tensors = {OURS + k.removeprefix(SMPS) if k.startswith(SMPS) else k: v for k, v in tensors.items()}
    parts = [(name, "is missing") for name in own if name not in tensors]
    parts += [(name, "is not known") for name in tensors if name not in known]
    parts += [
        (name, f"is {tuple(tensors[name].shape)} and not {tuple(value.shape)}")
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if parts:
        raise UsbenchError(
            f"the weights {source} do not fit their network: '{parts[0][0]}' {parts[0][1]}, and {len(parts) - 1} more; "
            "the config and the weights must be of one export."
        )
    refuse_infinite(tensors, source)
    checkpoint.restore(model, tensors)


def refuse_infinite(tensors: dict[str, Tensor], source: Path) -> None:
    """Refuse weights that a training has lost."""
    broken = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UsbenchError(
            f"the weights {source} hold values that are no finite numbers (in '{broken[0]}'): train or export again."
        )


def read(place: Path) -> Loaded:
    """The fine-tuned network of an export: its folder, or unet.safetensors with config.json beside it."""
    folder, file = (place, place / NETWORK) if place.is_dir() else (place.parent, place)
    config = read_config(folder / CONFIG)
    tensors = checkpoint.read(file)[0]
    _, model, protocol = build(config, folder / CONFIG)
    fill(model, tensors, file)
    return Loaded(config, model, protocol)


def load_network(place: str | Path) -> nn.Module:
    """The fine-tuned network of an export, in evaluation mode: (N, 1, H, W) normalised → logits (N, 1, H, W)."""
    return read(Path(place)).model


def load_pretrained_encoder(place: str | Path) -> nn.Module:
    """The encoder of an export as pretraining left it, in evaluation mode: (N, 1, H, W) normalised → a list of maps."""
    folder = Path(place)
    config = read_config(folder / CONFIG)
    tensors = checkpoint.read(folder / ENCODER)[0]
    refuse_infinite(tensors, folder / ENCODER)
    network, _, _ = build(config, folder / CONFIG)
    load_encoder(network, tensors, str(folder / ENCODER))
    return network.encoder.eval()


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
