"""What any backbone must keep, whoever wrote it. A check's docstring is the promise."""

from __future__ import annotations

import functools
import math
import time

import torch
from torch import Tensor

from usbench.conformance import promise
from usbench.conformance.promise import listed, require, says_what_it_is
from usbench.contracts import Network, pooled
from usbench.errors import UsbenchError
from usbench.train.networks import build_network

LEAST = 64  # pixels a side that it is checked at, or the next multiple of its stride


class Bench(promise.Bench):
    """A network as it is built fresh."""

    def build(self, size: int, seed: int = 0) -> Network:
        return build_network(self.entry, dict(self.entry.options), size, seed)

    @functools.cached_property
    def size(self) -> int:
        stride = self.entry.build(**self.entry.options).stride
        return stride * math.ceil(LEAST / stride)

    @functools.cached_property
    def network(self) -> Network:
        return self.build(self.size).eval()

    def scans(self, size: int = 0, count: int = 2) -> Tensor:
        side = size or self.size
        return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(side))


def gives_a_logit_a_pixel(bench: Bench) -> None:
    """One grey channel goes in, one finite logit a pixel comes out, through encoder, decoder and head in a row."""
    network, images = bench.network, bench.scans()
    with torch.no_grad():
        logits = network(images)
        require(logits.shape == images.shape, f"of {tuple(images.shape)} it makes {tuple(logits.shape)}")
        require(torch.isfinite(logits).all() and logits.min() < logits.max(), "the logits are not finite, or all one")
        row = network.head(network.decoder(network.encoder(images)))
    require(torch.equal(logits, row), "it is not its encoder, decoder and head in a row")


def has_maps_at_growing_strides(bench: Bench) -> None:
    """Its encoder gives square maps at growing strides that divide `stride`; the deepest, pooled, has `dim` numbers."""
    with torch.no_grad():
        maps = bench.network.encoder(bench.scans())
    shapes = [tuple(level.shape[2:]) for level in maps]
    require(all(height == width for height, width in shapes), f"its maps have the shapes {shapes}")
    strides = [bench.size / side for side, _ in shapes]
    require(strides == sorted(strides), f"its maps have the strides {strides}")
    whole = all(stride.is_integer() and bench.network.stride % stride == 0 for stride in strides)
    require(whole, f"its maps have the strides {strides}, which do not divide its own, {bench.network.stride}")
    vector = tuple(pooled(maps).shape)
    require(vector == (2, bench.network.dim), f"dim is {bench.network.dim}, and two images give vectors of {vector}")


def takes_sizes_of_its_stride(bench: Bench) -> None:
    """Any multiple of `stride` goes in, any other size is refused in a sentence."""
    network, size = bench.network, bench.size + bench.network.stride
    with torch.no_grad():
        made = tuple(network(bench.scans(size)).shape)
    require(made == (2, 1, size, size), f"two images of {size} px give {made}")
    if network.stride > 1:
        try:
            bench.build(size + 1)
        except UsbenchError:
            return
        require(False, f"{size + 1} px is not refused")


def gives_each_tensor_a_gradient(bench: Bench) -> None:
    """Each parameter gets a gradient from the logits."""
    network = bench.build(bench.size).train()
    network(bench.scans()).square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    require(not without, f"{listed(without)} gets none")
    wrong = [n for n, p in network.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    require(not wrong, f"the gradient of {listed(wrong)} is not finite")


def starts_from_the_seed(bench: Bench) -> None:
    """Fresh weights are equal from equal seeds and others from others."""
    torch.rand(3)
    own, again = bench.build(bench.size).state_dict(), bench.build(bench.size).state_dict()
    unequal = [name for name in own if not torch.equal(own[name], again[name])]
    require(not unequal, f"{listed(unequal)} differs between two networks of one seed")
    other = bench.build(bench.size, seed=1).state_dict()
    require(any(not torch.equal(own[name], other[name]) for name in own), "another seed gives the same weights")


def bears_bf16(bench: Bench) -> None:
    """In bf16 the logits are finite and near those of float32."""
    with torch.no_grad():
        exact = bench.network(bench.scans())
        with torch.autocast("cpu", torch.bfloat16):
            rough = bench.network(bench.scans()).float()
    require(torch.isfinite(rough).all(), "the logits are not finite")
    off = float((rough - exact).abs().max() / exact.abs().max().clamp_min(1e-6))
    require(off < 0.2, f"the logits are off by up to {100 * off:.0f} % of the largest")


def names_its_published_weights(bench: Bench) -> str:
    """Where it names a timm model whose weights fit its encoder, there is one."""
    import timm

    name = bench.network.timm_name
    require(not name or timm.is_model(name), f"timm has no model '{name}'")
    return name or "no published weights"


def costs(bench: Bench) -> str:
    """Its cost is told: parameters, and the time of an image forward."""
    network = bench.network
    count, encoder = (sum(p.numel() for p in part.parameters()) / 1e6 for part in (network, network.encoder))
    with torch.no_grad():
        began = time.perf_counter()
        network(bench.scans(count=4))
        seconds = (time.perf_counter() - began) / 4
    return f"{count:.1f} M parameters, {encoder:.1f} M in the encoder, {1e3 * seconds:.1f} ms for {bench.size} px"


CHECKS = (
    says_what_it_is, gives_a_logit_a_pixel, has_maps_at_growing_strides, takes_sizes_of_its_stride,
    gives_each_tensor_a_gradient, starts_from_the_seed, bears_bf16, names_its_published_weights, costs,
)  # fmt: skip
