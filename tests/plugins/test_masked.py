"""Masked modelling of any network: what is hidden, what counts, what is inherited."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from usbench_tokens.masked import PyramidHead, channels_of

from usbench import Batch, Loss
from usbench.draws import seed_globals
from usbench.errors import UsbenchError
from usbench.hooks import registry
from usbench.train.loop import Compute
from usbench.train.pretrain import Part, build_loss
from usbench.train.schedule import Schedule

CPU = torch.device("cpu")
SIZE, GRID = 32, 8
SMALL = {"unet-tiny": {}, "vit-tiny": {"dim": 32, "depth": 2, "width": 16}}


def build(name: str, backbone: str = "unet-tiny", **options: Any) -> Loss:
    seed_globals("masked")
    network = registry().get("backbone", backbone).build(**SMALL[backbone])
    entry = registry().get("loss", name)
    part = Part(entry, {**entry.options, **options})
    return build_loss(part, network, Schedule(10, 64, 1e-3, 0.0, 0.0), Compute(CPU, "float32"), 0).eval()


def batch_of(count: int = 3) -> Batch:
    """Noise, of which a little more than the left half is insonified."""
    view = torch.randn(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    sector = torch.zeros(count, 1, SIZE, SIZE)
    sector[..., :19] = 1  # three pixels of the fifth column of squares
    at = torch.arange(count)
    return Batch(
        [view], [torch.eye(2, 3).expand(count, 2, 3)], [sector], index=at, label=at, video=at, frame=at[:, None],
        time=at[:, None].float(), tag=at, step=3, total=10, rng=np.random.default_rng(3),
    )  # fmt: skip


def test_maps_without_channels_restore_nothing_and_hurt_nothing() -> None:
    network = registry().get("backbone", "unet").build(encoder="convnext_atto", width=32)
    assert channels_of(network) == [40, 80, 160, 320]


def test_whole_squares_are_masked_inside_the_sector_only_in_the_wanted_share() -> None:
    masked = build("simmim-cnn", mask_ratio=0.5).draw(batch_of())
    assert not masked[..., 19:].any()
    for image in masked[:, 0]:
        squares = [image[i : i + 4, j : min(j + 4, 19)] for i in range(0, SIZE, 4) for j in range(0, 20, 4)]
        assert all(square.all() or not square.any() for square in squares)
        assert sum(bool(square.all()) for square in squares) == 20  # half of five columns of eight


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("decoder", [False, True])
def test_simmim_cnn_is_the_absolute_error_on_masked_pixels(backbone: str, decoder: bool) -> None:
    loss = build("simmim-cnn", backbone, decoder=decoder)
    batch = batch_of()
    masked, view = loss.draw(batch), batch.views[0]
    restored = loss.restore(view, masked).detach()
    errors = [
        abs(float(restored[i, 0, y, x]) - float(view[i, 0, y, x]))
        for i in range(3)
        for y in range(SIZE)
        for x in range(SIZE)
        if masked[i, 0, y, x]
    ]
    assert float(loss(batch_of())) == pytest.approx(sum(errors) / len(errors), abs=1e-5)


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("decoder", [False, True])
def test_what_is_hidden_is_not_looked_at_and_the_value_in_its_place_is_learned(backbone: str, decoder: bool) -> None:
    loss = build("simmim-cnn", backbone, decoder=decoder)
    batch = batch_of()
    masked, view = loss.draw(batch), batch.views[0]
    restored = loss.restore(view, masked)
    assert torch.equal(loss.restore(torch.where(masked, 9.0, view), masked), restored)
    assert not torch.equal(loss.restore(view + 1, masked), restored)
    (gradient,) = torch.autograd.grad(restored.square().mean(), loss.mask_value)
    assert float(gradient.abs()) > 1e-6 and float(loss.mask_value.detach()) == 0


@pytest.mark.parametrize("name", ["simmim-cnn", "usfm"])
def test_the_decoder_is_trained_and_inherited_where_it_restores_the_image_and_else_not(name: str) -> None:
    for decoder in (False, True):
        loss = build(name, decoder=decoder)
        assert loss.transfer == ("network" if decoder else "encoder")
        sum(part for part in _parts(loss)).backward()
        rest = [*loss.network.decoder.named_parameters(), *loss.network.head.named_parameters()]
        assert all((p.grad is not None and bool(p.grad.abs().max() > 0)) == decoder for _, p in rest)
        assert all(p.grad is not None for p in loss.network.encoder.parameters())


def _parts(loss: Loss) -> list[Tensor]:
    value = loss(batch_of())
    return list(value.values()) if isinstance(value, dict) else [value]


def test_the_pyramids_head_reads_every_map_but_the_image_itself() -> None:
    for backbone, channels in (("unet-tiny", 5), ("vit-tiny", 1)):
        loss = build("simmim-cnn", backbone)
        assert len(channels_of(loss.network)) == channels == len(loss.restoring.narrow)
    head = PyramidHead([2, 3], 8)
    maps = [torch.randn(1, 2, 8, 8, requires_grad=True), torch.randn(1, 3, 4, 4, requires_grad=True)]
    made = head(maps, 16)
    assert made.shape == (1, 1, 16, 16)
    made.sum().backward()
    assert all(level.grad is not None and level.grad.abs().max() > 0 for level in maps)


def test_usfm_asks_for_masked_pixels_and_for_the_ring_that_was_cut_out() -> None:
    loss = build("usfm", frequency_weight=2.0)
    batch = batch_of()
    masked, ring = loss.draw(batch), loss.ring(batch)
    view = batch.views[0]
    plain = view[:, 0].numpy()
    cut = np.fft.rfft2(plain)
    cut[ring.numpy()] = 0
    spoilt = np.where(batch.sectors[0][:, 0].numpy() > 0, np.fft.irfft2(cut, (SIZE, SIZE)), plain)
    restored = loss.restore(torch.from_numpy(spoilt).float()[:, None], masked)[:, 0].detach().numpy()

    spatial, frequency = [], []
    for i in range(3):
        there, here = np.fft.rfft2(restored[i], norm="ortho"), np.fft.rfft2(plain[i], norm="ortho")
        spatial += [
            abs(restored[i, y, x] - plain[i, y, x]) for y, x in zip(*np.nonzero(masked[i, 0].numpy()), strict=True)
        ]
        frequency += [abs(there[u, v] - here[u, v]) for u, v in zip(*np.nonzero(ring[i].numpy()), strict=True)]
    got = {key: float(part.detach()) for key, part in loss(batch_of()).items()}
    expected = {"spatial": np.mean(spatial), "frequency": 2 * np.mean(frequency)}
    assert got == pytest.approx(expected, abs=1e-5)
    assert set(build("usfm", frequency_weight=0.0)(batch_of())) == {"spatial"}


def test_the_ring_has_its_width_and_spares_the_lowest_frequencies() -> None:
    loss = build("usfm", band=0.2)
    rings = loss.ring(batch_of(8))
    assert not torch.equal(rings[0], rings[1])
    for ring in rings:
        radii = [
            math.hypot(2 * np.fft.fftfreq(SIZE)[u], 2 * np.fft.rfftfreq(SIZE)[v])
            for u, v in zip(*np.nonzero(ring.numpy()), strict=True)
        ]
        assert min(radii) >= 0.1 and max(radii) - min(radii) <= 0.2 and max(radii) < 1


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("simmim-cnn", {"mask_ratio": 0.0}), ("simmim-cnn", {"mask_ratio": 1.0}), ("simmim-cnn", {"grid": 1}),
        ("simmim-cnn", {"width": 0}), ("usfm", {"band": 0.0}), ("usfm", {"band": 0.6}),
        ("usfm", {"frequency_weight": -1.0}), ("usfm", {"mask_ratio": 2.0}),
    ],
)  # fmt: skip
def test_an_option_out_of_its_range_is_refused_by_name(name: str, option: dict[str, Any]) -> None:
    ((key, value),) = option.items()
    with pytest.raises(UsbenchError, match=f"loss '{name}' refuses .*: {key} is {value}: "):
        build(name, **option)


@pytest.mark.parametrize("grid", [3, 7, 40])
def test_a_grid_that_does_not_divide_the_image_goes_too(grid: int) -> None:
    masked = build("simmim-cnn", grid=grid, mask_ratio=0.5).draw(batch_of())
    assert not masked[..., 19:].any()
    assert 0.3 < float(masked.float().mean()) / (19 / 32) < 0.7
