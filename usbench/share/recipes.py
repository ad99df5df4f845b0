"""How other libraries load an export: expressions of Python that are tried on the very weights before a card says them.

A backbone need not say anything for it. What timm or segmentation-models-pytorch (smp) can build is recognised by what
it is; anything else is loaded by usbench itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from usbench.contracts import Network, pooled
from usbench.share.config import ENCODER, NETWORK
from usbench.share.network import OURS, SMPS

TOLERANCE = 1e-5
UNIVERSAL = "tu-"  # before a timm model's name, for smp
WRAPPER = "model."  # what smp's wrapper of a timm encoder puts before a tensor's name
LEVELS = "[-1].mean((2, 3))"  # the deepest map, averaged
FAILURES = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, LookupError)


@dataclass(frozen=True)
class Recipe:
    """Lines that build a module, load its weights and use it."""

    library: str
    file: str
    name: str  # of the variable
    build: str
    use: str  # of `images`
    rename: Callable[[str], str] = str  # a tensor's name here → in the file

    @property
    def imports(self) -> str:
        """What stands before the lines."""
        if self.library == "usbench":
            return "import usbench"
        known = {"smp": "import segmentation_models_pytorch as smp", "timm": "import timm"}
        return f"{known[self.library]}\nfrom safetensors.torch import load_file"

    @property
    def lines(self) -> str:
        """Three lines where the library is not ours; they are run in the folder of the export."""
        result = "features" if self.file == ENCODER else "logits"
        load = f'{self.name}.load_state_dict(load_file("{self.file}"))\n' if self.library != "usbench" else ""
        return f"{self.name} = {self.build}\n{load}{result} = {self.use}"

    def renamed(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as the file calls them."""
        return {self.rename(name): value for name, value in tensors.items()}

    def works(self, tensors: dict[str, Tensor], images: Tensor, expected: Tensor) -> bool:
        """Whether the lines load these weights whole and give the same."""
        around: dict[str, Any] = {"smp": smp, "timm": timm, "images": images}
        try:
            with torch.random.fork_rng(devices=[]), torch.inference_mode():
                module = around[self.name] = eval(self.build, around)
                module.load_state_dict(self.renamed(tensors))
                found = eval(self.use, around)
        except FAILURES:
            return False
        return found.shape == expected.shape and bool(torch.allclose(found, expected, atol=TOLERANCE, rtol=TOLERANCE))


def encoder_recipe(network: Network, images: Tensor) -> Recipe:
    """How to load the encoder alone: the first way that works gives pooled features."""
    with torch.inference_mode():
        expected = pooled(network.encoder(images)).float()
    tensors = network.encoder.state_dict()
    for recipe in _encoders(network):
        if recipe.works(tensors, images, expected):
            return recipe
    load = 'usbench.load_pretrained_encoder(".")'
    return Recipe("usbench", ENCODER, "encoder", load, f"encoder(images){LEVELS}", _unwrapped)


def network_recipe(model: nn.Module, images: Tensor) -> Recipe:
    """How to load the fine-tuned network."""
    with torch.inference_mode():
        expected = model(images)
    if isinstance(model, Network):
        for recipe in _networks(model):
            if recipe.works(model.state_dict(), images, expected):
                return recipe
    return Recipe("usbench", NETWORK, "network", 'usbench.load_network(".")', "network(images)")


def _encoders(network: Network) -> Iterator[Recipe]:
    name = network.timm_name
    if name and timm.is_model(name):
        for options, use in (("num_classes=0", ""), ("features_only=True", LEVELS)):
            build = f"timm.create_model({name!r}, in_chans=1, {options}).eval()"
            yield Recipe("timm", ENCODER, "encoder", build, f"encoder(images){use}", _unwrapped)
    for called in _smp_names(name):
        build = f"smp.encoders.get_encoder({called!r}, in_channels=1, weights=None).eval()"
        yield Recipe("smp", ENCODER, "encoder", build, f"encoder(images){LEVELS}")


def _networks(network: Network) -> Iterator[Recipe]:
    blocks = getattr(network.decoder, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        return
    try:
        widths = tuple(int(block.conv2[0].out_channels) for block in blocks)  # type: ignore[index, union-attr]
    except FAILURES:
        return
    for called in _smp_names(network.timm_name):
        build = (
            f"smp.Unet({called!r}, encoder_weights=None, in_channels=1, classes=1, decoder_channels={widths}).eval()"
        )
        yield Recipe("smp", NETWORK, "network", build, "network(images)", _smps)


def _smp_names(name: str) -> list[str]:
    """What smp may call an encoder: by its own name, and as timm's."""
    names = [name] if name in smp.encoders.encoders else []
    return [*names, UNIVERSAL + name] if name and timm.is_model(name) else names


def _unwrapped(name: str) -> str:
    return name.removeprefix(WRAPPER)


def _smps(name: str) -> str:
    return SMPS + name.removeprefix(OURS) if name.startswith(OURS) else name
