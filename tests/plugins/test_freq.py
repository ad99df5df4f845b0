"""Frequency steps change amplitudes and nothing else; spatial and frequency steps refuse what makes no sense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from usbench_freq import AMPLITUDE_MIX, BAND_STOP, FREQUENCY, PHASE_JITTER, SPATIAL
from usbench_freq.frequency import BINS, Frequency, freq
from usbench_freq.spatial import Spatial
from usbench_freq.steps import AmplitudeMix, BandStop, PhaseJitter

from usbench import Augmentation
from usbench.errors import UsbenchError
from usbench.hooks import Registry
from usbench.views import Views

WHOLE = np.array([[-1, -1, 1, 1]], np.float32)


def grey(count: int = 6, size: int = 48, contrast: float = 0.02) -> Tensor:
    """Mid-grey images of little contrast, so that no step runs into black or white; each with its own mean."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((count, 1, size, size))
    noise += 6 * np.sin(np.arange(size) / 7 + rng.uniform(0, 6, (count, 1, 1, 1)))
    means = np.linspace(0.45, 0.55, count)[:, None, None, None]
    return torch.from_numpy((means + contrast * noise / 3).astype(np.float32))


def draw(step: Augmentation, count: int, seed: int = 0) -> dict[str, Tensor]:
    values = step.draw(np.random.default_rng(seed), WHOLE.repeat(count, 0), local=False)
    return {name: torch.from_numpy(value) for name, value in values.items()}


def given(count: int, profile: np.ndarray | None = None, share: float = 0.0) -> dict[str, Tensor]:
    """Parameters as drawn ones, but chosen: everybody's partner is the next image."""
    rows = np.ones(BINS, np.float32) if profile is None else profile.astype(np.float32)
    return {
        "profile": torch.from_numpy(np.tile(rows, (count, 1))),
        "share": torch.full((count,), share),
        "partner": torch.arange(count).roll(-1),
    }


def radius(size: int) -> np.ndarray:
    """Of each place of the whole spectrum: 0 at the mean, 1 at the corner."""
    f = np.fft.fftfreq(size)
    return np.hypot(f[:, None], f[None]) / np.hypot(0.5, 0.5)


def spectra(images: Tensor) -> np.ndarray:
    return np.fft.fft2(images[:, 0].double().numpy())


STEPS = {
    "band-stop": {"band": 1.0, "cut": 0.0, "mix": 0.0, "gain": 0.0},
    "low- and high-pass": {"band": 0.0, "cut": 1.0, "mix": 0.0, "gain": 0.0},
    "mix": {"band": 0.0, "cut": 0.0, "mix": 1.0, "gain": 0.0},
    "gain": {"band": 0.0, "cut": 0.0, "mix": 0.0, "gain": 0.3},
    "all": {"band": 1.0, "cut": 1.0, "mix": 1.0, "gain": 0.3},
    "defaults": {},
}


@pytest.mark.parametrize("options", STEPS.values(), ids=STEPS)
def test_the_phase_and_the_mean_grey_are_kept_and_the_amplitude_is_not(options: dict[str, Any]) -> None:
    images, step = grey(), Frequency(**options)
    changed = step(images, draw(step, len(images)), None)
    assert changed.min() > 0 and changed.max() < 1  # nothing was clamped, else the phase may change
    torch.testing.assert_close(changed.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-5, rtol=0)
    before, after = spectra(images), spectra(changed)
    loud = (np.abs(before) > 0.05) & (np.abs(after) > 0.05)
    assert loud.mean() > 0.2
    turned = np.angle(after[loud] / before[loud])
    assert np.abs(turned).max() < 0.01
    assert (np.abs(np.abs(after) - np.abs(before)) > 0.05).any((1, 2)).mean() > 0.5


def test_without_any_step_the_image_stays() -> None:
    images, step = grey(), Frequency(band=0.0, cut=0.0, mix=0.0, gain=0.0)
    torch.testing.assert_close(step(images, draw(step, len(images)), None), images, atol=1e-6, rtol=0)


def test_a_band_stop_removes_the_energy_of_its_band_and_nothing_else() -> None:
    images = grey(size=64)
    profile = np.ones(BINS)
    profile[20:30] = 0.0
    before, after = spectra(images), spectra(Frequency()(images, given(len(images), profile), None))
    stopped = (radius(64) >= 20 / BINS) & (radius(64) < 30 / BINS)
    assert np.abs(before[:, stopped]).mean() > 0.1
    assert np.abs(after[:, stopped]).max() < 1e-3
    assert np.abs(after - before)[:, ~stopped].max() < 1e-3


def test_a_drawn_band_has_a_width_in_its_range_and_is_never_the_mean() -> None:
    low, high = 0.1, 0.2
    step = Frequency(**STEPS["band-stop"] | {"band_width": (low, high)})
    profile = draw(step, 300)["profile"].numpy()
    assert set(np.unique(profile)) == {0.0, 1.0} and (profile[:, 0] == 1).all()
    for row in profile:
        (zeros,) = np.nonzero(row == 0)
        assert len(zeros) and np.array_equal(zeros, np.arange(zeros[0], zeros[-1] + 1))  # one band
        assert len(zeros) <= high * BINS + 1
        assert len(zeros) >= low * BINS - 1 or zeros[-1] == BINS - 1  # the corner cuts a band short
        assert zeros[0] >= 0.05 * BINS - 1


@pytest.mark.parametrize(("option", "share"), [("band", 0.3), ("cut", 0.4), ("mix", 0.7)])
def test_a_step_is_taken_as_often_as_its_probability_says(option: str, share: float) -> None:
    off = {"band": 0.0, "cut": 0.0, "mix": 0.0, "gain": 0.0}
    drawn = draw(Frequency(**off | {option: share}), 2000)
    taken = (drawn["profile"] != 1).any(1) | (drawn["share"] > 0)
    assert float(taken.float().mean()) == pytest.approx(share, abs=0.05)


def test_the_gain_is_smooth_and_within_its_range() -> None:
    profile = draw(Frequency(**STEPS["gain"]), 300)["profile"][:, 1:]
    assert 0.7 <= profile.min() < 0.75 and 1.25 < profile.max() <= 1.3
    assert profile.diff(dim=1).abs().max() <= 0.6 / (BINS / 4) + 1e-5


def test_the_partner_of_an_image_is_another_one() -> None:
    for count in (2, 3, 9):
        partner = draw(Frequency(mix=1.0), count)["partner"]
        assert (partner != torch.arange(count)).all() and (partner >= 0).all() and (partner < count).all()
    assert draw(Frequency(mix=1.0), 1)["partner"].tolist() == [0]


@pytest.mark.parametrize("step", [Frequency(mix=1.0), AmplitudeMix()], ids=["freq-only", "amplitude-mix"])
@pytest.mark.parametrize(("images", "views"), [(2, 2), (3, 7), (9, 2)])
def test_the_partner_is_never_another_view_of_the_same_image(step: Augmentation, images: int, views: int) -> None:
    step.views = views
    for seed in range(20):
        partner = draw(step, images * views, seed)["partner"]
        assert (partner % images != torch.arange(images * views) % images).all()
        assert (partner >= 0).all() and (partner < images * views).all()


def test_the_harness_says_how_many_views_of_an_image_a_draw_is_for() -> None:
    views = Views([AmplitudeMix(), Spatial(), Frequency(mix=1.0)], 32, (2, 5))
    for seed in range(10):
        for each in views.draw(np.random.default_rng(seed), WHOLE.repeat(2, 0), torch.device("cpu")):
            own = torch.arange(2 * each.views) % 2
            for drawn in (each.steps[0], each.steps[2]):
                assert (drawn["partner"] % 2 != own).all()


def test_the_views_of_a_lone_image_mix_with_one_another() -> None:
    step = AmplitudeMix()
    step.views = 3
    assert set(draw(step, 3)["partner"].tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("size", [32, 45])
@pytest.mark.parametrize("mix_size", [0.01, 0.1, 0.3, 0.5])
def test_the_amplitude_mix_equals_a_loop_over_each_frequency(mix_size: float, size: int) -> None:
    images, share = grey(3, size), 0.6
    changed = Frequency(mix_size=mix_size)(images, given(3, share=share), None)
    reach = max(1, int(mix_size * size))
    for i in range(3):
        one = np.fft.fft2(images[i, 0].double().numpy())
        two = np.fft.fft2(images[(i + 1) % 3, 0].double().numpy())
        mixed = one.copy()
        for row in range(size):
            for column in range(size):
                up = row if row <= size // 2 else row - size
                right = column if column <= size // 2 else column - size
                if abs(up) <= reach and abs(right) <= reach and (up, right) != (0, 0):
                    amplitude = (1 - share) * abs(one[row, column]) + share * abs(two[row, column])
                    mixed[row, column] = amplitude * np.exp(1j * np.angle(one[row, column]))
        slow = np.fft.ifft2(mixed)
        assert np.abs(slow.imag).max() < 1e-9
        assert changed[i, 0].numpy() == pytest.approx(slow.real, abs=2e-5)


def test_each_image_of_a_batch_is_changed_by_its_own_parameters() -> None:
    images, step = grey(5), Frequency(mix=0.0, band=1.0)
    drawn = draw(step, 5)
    together = step(images, drawn, None)
    for i in range(5):
        alone = step(images[i : i + 1], {k: v[i : i + 1] * (k != "partner") for k, v in drawn.items()}, None)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-6, rtol=0)
    assert len({tuple(row.tolist()) for row in drawn["profile"]}) == 5


def test_outside_the_sector_the_pixels_are_the_ones_that_came_in() -> None:
    images = torch.rand(4, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    sector = torch.zeros(4, 1, 40, 40, dtype=torch.bool)
    sector[:, :, 5:30, 8:35] = True
    step = Frequency(band=1.0, mix=1.0)
    drawn = draw(step, 4)
    changed, whole = step(images, drawn, sector), step(images, drawn, None)
    assert torch.equal(changed[~sector], images[~sector])
    assert torch.equal(changed[sector], whole[sector])
    assert (changed[sector] != images[sector]).float().mean() > 0.99


def test_pixels_stay_between_black_and_white() -> None:
    images = torch.rand(4, 1, 40, 40, generator=torch.Generator().manual_seed(0)).round()
    step = Frequency(band=1.0, mix=1.0)
    changed = step(images, draw(step, 4), None)
    assert changed.min() == 0 and changed.max() == 1


def test_the_input_is_not_written_to() -> None:
    images, step = grey(), Frequency(band=1.0, mix=1.0)
    before = images.clone()
    drawn = draw(step, len(images))
    kept = {name: value.clone() for name, value in drawn.items()}
    step(images, drawn, None)
    assert torch.equal(images, before)
    assert all(torch.equal(drawn[name], kept[name]) for name in kept)


# lightly has the same transforms for one image at a time.


def lightly_chain(image: Tensor, *transforms: Callable[[Tensor], Tensor]) -> Tensor:
    from lightly.transforms.irfft2d_transform import IRFFT2DTransform
    from lightly.transforms.rfft2d_transform import RFFT2DTransform

    spectrum = RFFT2DTransform()(image)
    for transform in transforms:
        spectrum = transform(spectrum)
    return IRFFT2DTransform(shape=(image.shape[-2], image.shape[-1]))(spectrum)


@pytest.mark.parametrize("size", [48, 45])
def test_a_radial_profile_does_what_lightlys_transforms_do_with_the_same_gains(size: int) -> None:
    images = grey(3, size)
    profile = 1 + 0.2 * np.cos(np.arange(BINS) / 5)
    profile[0] = 1.0
    gains = profile[np.minimum((radius(size) * BINS).astype(int), BINS - 1)][:, : size // 2 + 1]
    changed = Frequency()(images, given(3, profile), None)
    for image, got in zip(images, changed, strict=True):
        expected = lightly_chain(image, lambda spectrum: spectrum * torch.from_numpy(gains).float())
        # A frequency on the edge of two bins may fall into either, by rounding: hence a mean.
        assert (got - expected).abs().mean() < 1e-4


def test_one_gain_for_all_equals_lightlys_amplitude_rescale_but_for_the_mean() -> None:
    from lightly.transforms.amplitude_rescale_transform import AmplitudeRescaleTransform

    images = grey(3)
    changed = Frequency()(images, given(3, np.full(BINS, 0.7)), None)
    for image, got in zip(images, changed, strict=True):
        expected = lightly_chain(image, AmplitudeRescaleTransform((0.7, 0.7 + 1e-6)))
        torch.testing.assert_close(got - image.mean(), expected - 0.7 * image.mean(), atol=1e-5, rtol=0)


def test_stopping_every_frequency_equals_lightlys_mask_of_all() -> None:
    from lightly.transforms.random_frequency_mask_transform import RandomFrequencyMaskTransform

    images, profile = grey(3), np.zeros(BINS)
    profile[0] = 1.0
    changed = Frequency()(images, given(3, profile), None)
    for image, got in zip(images, changed, strict=True):
        expected = lightly_chain(image, RandomFrequencyMaskTransform(k=(1.0, 1.0)))
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


# The single steps.


@pytest.mark.parametrize("shape", [(48, 48), (45, 45), (32, 51)])
def test_a_band_stop_equals_lightlys_transforms_around_its_mask(shape: tuple[int, int]) -> None:
    images, step = torch.rand(4, 1, *shape, generator=torch.Generator().manual_seed(0)) / 4 + 0.4, BandStop(p=1.0)
    drawn = draw(step, 4)
    changed = step(images, drawn, None)
    for i, image in enumerate(images):
        mask = torch.ones(shape[0], shape[1] // 2 + 1)
        for row, fy in enumerate(np.fft.fftfreq(shape[0])):
            for place, fx in enumerate(np.fft.rfftfreq(shape[1])):
                if drawn["first"][i] <= np.hypot(fy, fx) / np.hypot(0.5, 0.5) < drawn["last"][i]:
                    mask[row, place] = 0
        assert mask[0, 0] == 1 and 0 < (mask == 0).float().mean() < 0.6
        torch.testing.assert_close(changed[i], lightly_chain(image, lambda s, m=mask: s * m), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(48, 48), (45, 45), (32, 51)])
def test_the_amplitude_mix_equals_fda_for_one_image_at_a_time(shape: tuple[int, int]) -> None:
    images = torch.rand(5, 1, *shape, generator=torch.Generator().manual_seed(0)) / 8 + 0.4
    step = AmplitudeMix(reach=(0.0, 0.2))
    drawn = draw(step, 5)
    changed = step(images, drawn, None)
    assert changed.min() > 0 and changed.max() < 1
    middle = shape[0] // 2, shape[1] // 2
    for i in range(5):
        source, target = (np.fft.fft2(images[j, 0].double().numpy()) for j in (i, int(drawn["partner"][i])))
        one, two = np.fft.fftshift(np.abs(source)), np.fft.fftshift(np.abs(target))
        reach = int(np.floor(float(drawn["reach"][i]) * min(shape)))
        window = tuple(slice(m - reach, m + reach + 1) for m in middle)
        share = float(drawn["share"][i])
        one[window] = (1 - share) * one[window] + share * two[window]
        slow = np.fft.ifft2(np.fft.ifftshift(one) * np.exp(1j * np.angle(source))).real
        assert changed[i, 0].numpy() == pytest.approx(slow, abs=1e-5)
        after = np.fft.fft2(changed[i, 0].double().numpy())
        loud = (np.abs(source) > 0.1) & (np.abs(after) > 0.1)
        assert np.abs(np.angle(after[loud] / source[loud])).max() < 1e-3


@pytest.mark.parametrize("shape", [(48, 48), (45, 45), (32, 51)])
def test_a_phase_jitter_keeps_every_amplitude_and_turns_the_phases_as_far_as_drawn(shape: tuple[int, int]) -> None:
    images = torch.rand(4, 1, *shape, generator=torch.Generator().manual_seed(0)) / 8 + 0.4
    step = PhaseJitter(strength=(0.5, 0.5))
    changed = step(images, draw(step, 4), None)
    assert changed.min() > 0 and changed.max() < 1
    before, after = spectra(images), spectra(changed)
    assert np.abs(after) == pytest.approx(np.abs(before), abs=2e-4)
    torch.testing.assert_close(changed.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-5, rtol=0)
    loud = np.abs(before) > 0.1
    turned = np.where(loud, np.angle(after / before), np.nan)
    assert 0.3 < np.sqrt(np.nanmean(turned**2)) < 0.7


def test_a_phase_jitter_equals_lightlys_transforms_around_its_phases() -> None:
    images, step = grey(3, 45), PhaseJitter(strength=(0.4, 0.4))
    drawn = draw(step, 3)
    changed = step(images, drawn, None)
    for i, image in enumerate(images):
        theta = np.zeros((45, 23))
        for amplitude, move in zip(drawn["amplitude"][i].numpy(), drawn["move"][i].numpy() * 45, strict=True):
            down, across = (np.floor(m) if m < 0 else np.ceil(m) for m in move)
            for row, fy in enumerate(np.fft.fftfreq(45)):
                for place, fx in enumerate(np.fft.rfftfreq(45)):
                    theta[row, place] += amplitude * np.sin(2 * np.pi * (down * fy + across * fx))
        turn = torch.from_numpy(np.exp(1j * theta)).to(torch.complex64)
        torch.testing.assert_close(changed[i], lightly_chain(image, lambda s, t=turn: s * t), atol=1e-5, rtol=0)


def test_the_outline_of_the_sector_leaves_no_trace_in_even_tissue() -> None:
    sector = torch.zeros(3, 1, 40, 40, dtype=torch.bool)
    sector[:, :, 5:30, 8:35] = True
    images = 0.4 * sector
    for step in (BandStop(p=1.0), AmplitudeMix(), PhaseJitter(strength=(0.5, 0.5))):
        torch.testing.assert_close(step(images, draw(step, 3), sector), images, atol=1e-6, rtol=0)


# What is refused, and the recipes.


@pytest.mark.parametrize(
    ("step", "options", "said"),
    [
        (Frequency, {"band": -0.1}, "band is -0.1"),
        (Frequency, {"band": 1.1}, "band is 1.1"),
        (Frequency, {"cut": 2.0}, "cut is 2.0"),
        (Frequency, {"mix": float("nan")}, "mix is nan"),
        (Frequency, {"band_width": (0.0, 0.2)}, "band_width"),
        (Frequency, {"band_width": (0.3, 0.2)}, "band_width"),
        (Frequency, {"band_width": (0.1, 1.0)}, "band_width"),
        (Frequency, {"mix_size": 0.0}, "mix_size is 0.0"),
        (Frequency, {"mix_size": 0.6}, "mix_size is 0.6"),
        (Frequency, {"gain": 1.0}, "gain is 1.0"),
        (Frequency, {"gain": -0.1}, "gain is -0.1"),
        (BandStop, {"band_width": (0.3, 0.2)}, "band_width is 0.3/0.2"),
        (BandStop, {"lowest": 0.0}, "lowest is 0.0"),
        (BandStop, {"p": 1.5}, "p is 1.5"),
        (AmplitudeMix, {"share": (0.0, 1.5)}, "share is 0.0/1.5"),
        (AmplitudeMix, {"reach": (0.0, 0.6)}, "reach is 0.0/0.6"),
        (PhaseJitter, {"strength": (-0.1, 0.6)}, "strength is -0.1/0.6"),
        (PhaseJitter, {"reach": 0.0}, "reach is 0.0"),
        (Spatial, {"scale": (0.0, 1.0)}, "scale is 0.0/1.0"),
        (Spatial, {"scale": (0.5, 0.4)}, "scale is 0.5/0.4"),
        (Spatial, {"scale": (0.5, 1.1)}, "scale is 0.5/1.1"),
        (Spatial, {"local_scale": (0.5, 1.1)}, "local_scale is 0.5/1.1"),
        (Spatial, {"ratio": (0.0, 1.0)}, "ratio is 0.0/1.0"),
        (Spatial, {"ratio": (1.5, 1.0)}, "ratio is 1.5/1.0"),
        (Spatial, {"degrees": -5.0}, "degrees is -5.0"),
        (Spatial, {"degrees": 181.0}, "degrees is 181.0"),
        (Spatial, {"flip": 1.5}, "flip is 1.5"),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(step: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        step(**options)


@pytest.mark.parametrize(
    ("name", "factory", "defaults"),
    [
        ("spatial", Spatial, SPATIAL),
        ("freq-only", Frequency, FREQUENCY),
        ("band-stop", BandStop, BAND_STOP),
        ("amplitude-mix", AmplitudeMix, AMPLITUDE_MIX),
        ("phase-jitter", PhaseJitter, PHASE_JITTER),
    ],
)
def test_the_registered_defaults_are_the_factories_own(
    installed: Registry, name: str, factory: Any, defaults: dict[str, Any]
) -> None:
    built, plain = installed.get("augmentation", name).build(), factory()
    for option in defaults:
        assert getattr(built, option) == getattr(plain, option) == defaults[option]


def test_freq_is_spatial_then_frequency_each_with_its_own_options(installed: Registry) -> None:
    spatial, frequency = installed.get("augmentation", "freq").build(degrees=3.0, gain=0.1)
    assert isinstance(spatial, Spatial) and spatial.degrees == 3.0
    assert isinstance(frequency, Frequency) and frequency.gain == 0.1
    assert frequency.wants_sector and not spatial.wants_sector
    assert installed.get("augmentation", "none").build() == []
    assert [type(step) for step in freq()] == [Spatial, Frequency]


def test_a_refused_option_ends_in_a_sentence_with_the_plugins_name(installed: Registry) -> None:
    with pytest.raises(UsbenchError, match=r"augmentation 'freq' refuses mix_size=0.9: mix_size is 0.9"):
        installed.get("augmentation", "freq").build(mix_size=0.9)
