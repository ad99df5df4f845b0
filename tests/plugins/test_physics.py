"""Every augmentation by its promises, and the physics steps by what they do to an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor
from torch.nn import functional
from usbench_physics import STEPS
from usbench_physics.crop import SectorCrop
from usbench_physics.depth import TGC, Attenuation, Shadow, depth_of
from usbench_physics.display import Gain
from usbench_physics.erase import Cutout
from usbench_physics.recipes import ivpp, simclr, uscl
from usbench_physics.texture import Blur, Speckle

from usbench import Augmentation
from usbench.draws import generator
from usbench.errors import UsbenchError
from usbench.hooks import Entry, Registry, registry
from usbench.views import DEVIATION, MEAN, Views, normalise

CPU = torch.device("cpu")
BOX = np.array([[-0.75, -0.5, 0.5, 1.0]], np.float32)
ENTRIES = list(registry().entries("augmentation"))
SHAPES = [(48, 48), (45, 45), (32, 51)]
# Options under which a step changes nothing.
STILL: dict[str, dict[str, Any]] = {
    "speckle": {"strength": (0.0, 0.0)}, "blur": {"p": 0.0}, "tgc": {"strength": (0.0, 0.0)},
    "attenuation": {"rate": (0.0, 0.0)}, "shadow": {"strength": (0.0, 0.0)}, "gain": {"p": 0.0}, "cutout": {"p": 0.0},
    "band-stop": {"p": 0.0}, "amplitude-mix": {"share": (0.0, 0.0)}, "phase-jitter": {"strength": (0.0, 0.0)},
    "freq-only": {"band": 0.0, "cut": 0.0, "mix": 0.0, "gain": 0.0},
}  # fmt: skip


def tissue(count: int = 4, shape: tuple[int, int] = (48, 48)) -> Tensor:
    """Smooth blobs of grey with a little texture."""
    rng = generator("tissue", count, *shape)
    coarse = torch.from_numpy(rng.uniform(0.2, 0.8, (count, 1, 5, 5)).astype(np.float32))
    fine = torch.from_numpy(rng.uniform(-0.1, 0.1, (count, 1, *shape)).astype(np.float32))
    return functional.interpolate(coarse, size=shape, mode="bicubic", align_corners=True).clamp(0.1, 0.9) + fine


def sector_of(images: Tensor) -> Tensor:
    """The inside of BOX without a corner."""
    n, _, height, width = images.shape
    left, top, right, bottom = (BOX[0] + 1) / 2 * [width, height, width, height]
    sector = torch.zeros(n, 1, height, width, dtype=torch.bool)
    sector[:, :, round(top) : round(bottom), round(left) : round(right)] = True
    sector[:, :, : round(top) + 4, : round(left) + 4] = False
    return sector


def draw(step: Augmentation, count: int, seed: int = 0, *, local: bool = False) -> dict[str, Tensor]:
    values = step.draw(generator("draw", seed), BOX.repeat(count, 0), local=local)
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()}


def steps_of(entry: Entry, **options: Any) -> list[Augmentation]:
    """What a factory builds, without its spatial steps, since these write no `forward`."""
    built = entry.build(**options)
    every: list[Augmentation] = built if isinstance(built, list) else [built]
    return [step for step in every if "affine" not in draw(step, 1)]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
class TestEveryAugmentation:
    """What any augmentation must keep, whoever wrote it."""

    def test_the_same_generator_gives_the_same_views_whatever_the_global_one(self, entry: Entry) -> None:
        images, found = (tissue(3) * 255).to(torch.uint8), []
        for seed in (1, 2):
            torch.manual_seed(seed)
            np.random.seed(seed)
            built = entry.build()
            views = Views(built if isinstance(built, list) else [built], 32, (2, 1))
            sector = sector_of(images).to(torch.uint8) if views.wants_sector else None
            found.append(views(images, sector, views.draw(generator("views"), BOX.repeat(3, 0), CPU))[0])
        assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
        assert all(torch.isfinite(view).all() for view in found[0])

    def test_every_view_has_parameters_of_its_own(self, entry: Entry) -> None:
        built = entry.build()
        for step in built if isinstance(built, list) else [built]:
            drawn = draw(step, 64)
            rows = torch.cat([value.reshape(64, -1) for value in drawn.values()], 1)
            assert len(rows) == 64
            assert len({tuple(row.tolist()) for row in rows}) > 20  # a view that stays draws nothing

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_outside_the_sector_nothing_changes_and_inside_grey_stays_grey(
        self, entry: Entry, shape: tuple[int, int]
    ) -> None:
        images = tissue(6, shape)
        images[3:] = images[3:].round()  # black and white too
        sector = sector_of(images)
        for step in steps_of(entry):
            before, drawn = images.clone(), draw(step, 6)
            kept = {name: value.clone() for name, value in drawn.items()}
            changed = step(images, drawn, sector)
            assert changed.shape == images.shape and changed.dtype == torch.float32
            assert changed.min() >= 0 and changed.max() <= 1
            assert torch.equal(changed[~sector], images[~sector])
            assert not torch.equal(changed[sector], images[sector])
            assert torch.equal(images, before) and all(torch.equal(drawn[name], kept[name]) for name in kept)

    def test_an_image_is_changed_by_its_own_row_and_no_other(self, entry: Entry) -> None:
        images = tissue(5)
        sector = sector_of(images)
        for step in steps_of(entry):
            drawn = draw(step, 5)
            together = step(images, drawn, sector)
            for i in range(5):
                if "partner" in drawn:
                    pair = [i, int(drawn["partner"][i])]
                    row = {k: v[pair] if k != "partner" else torch.tensor([1, 0]) for k, v in drawn.items()}
                else:
                    pair, row = [i], {k: v[i : i + 1] for k, v in drawn.items()}
                alone = step(images[pair], row, sector[pair])
                torch.testing.assert_close(together[i], alone[0], atol=1e-6, rtol=0)

    @pytest.mark.parametrize("shape", [(33, 33), (64, 40)], ids=str)
    def test_one_image_without_a_sector_is_enough(self, entry: Entry, shape: tuple[int, int]) -> None:
        for step in steps_of(entry):
            changed = step(tissue(1, shape), draw(step, 1), None)
            assert changed.shape == (1, 1, *shape) and torch.isfinite(changed).all()

    def test_a_view_that_shows_no_tissue_stays_as_it_is(self, entry: Entry) -> None:
        images = torch.zeros(2, 1, 32, 32)
        for step in steps_of(entry):
            assert torch.equal(step(images, draw(step, 2), torch.zeros_like(images, dtype=torch.bool)), images)

    def test_nothing_drawn_is_nothing_changed(self, entry: Entry) -> None:
        images = tissue(4)
        for step in steps_of(entry, **STILL[entry.name]) if entry.name in STILL else []:
            drawn = draw(step, 4)
            for sector in (None, sector_of(images)):
                torch.testing.assert_close(step(images, drawn, sector), images, atol=1e-6, rtol=0)

    def test_the_registered_defaults_are_the_factorys_own(self, entry: Entry) -> None:
        def facts(built: Any) -> list[dict[str, Any]]:
            steps = built if isinstance(built, list) else [built]
            return [{k: v for k, v in vars(step).items() if not k.startswith("_")} for step in steps]

        assert facts(entry.build()) == facts(entry.resolve()())


# Speckle and blur.


def speckle(grain: float, size: int = 96, count: int = 40) -> np.ndarray:
    """Fully developed speckle on even grey, dark enough that nothing is clamped."""
    step = Speckle(strength=(1.0, 1.0), grain=(grain, grain))
    return step(torch.full((count, 1, size, size), 0.1), draw(step, count), None)[:, 0].numpy() * 10


def test_speckle_is_rayleigh_of_mean_one() -> None:
    values = speckle(0.04)[:, ::12, ::24]
    assert values.mean() == pytest.approx(1, abs=0.05)
    assert values.std() / values.mean() == pytest.approx((4 / np.pi - 1) ** 0.5, abs=0.03)  # 0.52
    assert stats.kstest(values.ravel(), stats.rayleigh(scale=(2 / np.pi) ** 0.5).cdf).statistic < 0.04


@pytest.mark.parametrize("grain", [0.05, 0.1])
def test_a_spot_is_as_deep_as_its_grain_and_twice_as_wide(grain: float) -> None:
    power = speckle(grain) ** 2
    power -= power.mean((1, 2), keepdims=True)
    for axis, expected in ((1, grain), (2, 2 * grain)):
        half = round(expected * 96 / 2)
        near, far = (np.moveaxis(power, axis, 1)[:, s] for s in (slice(None, -half), slice(half, None)))
        assert (near * far).mean() / power.var() == pytest.approx(0.5, abs=0.12)


def test_speckle_multiplies_so_black_stays_black_and_the_mean_stays() -> None:
    images, step = tissue(8) * 0.3, Speckle()
    images[..., 10:20, 10:20] = 0
    changed = step(images, draw(step, 8), None)
    assert (changed[..., 10:20, 10:20] == 0).all()
    assert changed.mean() == pytest.approx(float(images.mean()), rel=0.05)


def test_a_larger_view_shows_the_same_speckle() -> None:
    step = Speckle(strength=(1.0, 1.0), grain=(0.1, 0.1))
    drawn = draw(step, 3)
    small, large = (step(torch.full((3, 1, s, s), 0.1), drawn, None) for s in (32, 96))
    torch.testing.assert_close(functional.avg_pool2d(large, 3), small, atol=0.02, rtol=0)


def test_a_blur_equals_scipys_gaussian_of_each_images_own_width() -> None:
    images, step = tissue(4, (48, 48)), Blur(sigma=(0.01, 0.03), p=1.0)
    drawn = draw(step, 4)
    changed = step(images, drawn, None)
    reach = int(np.ceil(3 * 0.03 * 48))
    for image, sigma, got in zip(images[:, 0].numpy(), drawn["sigma"].tolist(), changed[:, 0].numpy(), strict=True):
        blurred, weight = (
            ndimage.gaussian_filter(plane, sigma * 48, mode="constant", radius=reach)
            for plane in (image.astype(np.float64), np.ones((48, 48)))
        )
        assert got == pytest.approx(blurred / weight, abs=1e-5)


def test_no_black_from_outside_bleeds_into_a_blurred_sector() -> None:
    images = tissue(3)
    sector = sector_of(images)
    even, step = torch.where(sector, 0.6, 0.0), Blur(sigma=(0.05, 0.05), p=1.0)
    torch.testing.assert_close(step(even, draw(step, 3), sector), even, atol=1e-5, rtol=0)


# Depth.


def test_depth_is_nought_at_the_top_of_the_sector_and_one_at_its_bottom() -> None:
    images = torch.zeros(2, 1, 20, 20)
    sector = torch.zeros(2, 1, 20, 20, dtype=torch.bool)
    sector[0, :, 4:15, 3:9] = True
    sector[1, :, 10:, 10] = True
    depth = depth_of(images, sector)
    for i, (top, bottom) in enumerate([(4, 14), (10, 19)]):
        expected = [min(max((row - top) / (bottom - top), 0.0), 1.0) for row in range(20)]
        assert depth[i, 0, :, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert depth_of(images, None)[0, 0, :, 0].tolist() == pytest.approx(np.linspace(0, 1, 20).tolist(), abs=1e-6)


def test_attenuation_decays_by_its_rate_from_the_top_of_the_sector() -> None:
    images = torch.full((6, 1, 40, 40), 0.5)
    sector, step = sector_of(images), Attenuation()
    drawn = draw(step, 6)
    changed = step(images, drawn, sector)
    for i in range(6):
        for row in range(10, 40):
            expected = min(0.5 * np.exp(-float(drawn["rate"][i]) * (row - 10) / 29), 1.0)
            assert float(changed[i, 0, row, 20]) == pytest.approx(expected, abs=1e-5)
    assert (drawn["rate"] < 0).any() and (drawn["rate"] > 0).any()


def test_the_gain_over_depth_meets_every_slider_and_is_smooth() -> None:
    images, step = torch.full((5, 1, 101, 8), 0.2), TGC(strength=(0.5, 0.5))
    drawn = draw(step, 5)
    gain = (step(images, drawn, None) / images)[:, 0, :, 0].log()
    assert torch.allclose(gain[:, ::20], drawn["sliders"], atol=1e-5)
    assert gain.diff(dim=1).abs().max() < 1.6 / 20  # a smooth step's steepest place is 1.5 times its mean
    assert gain.diff(dim=1, n=2).abs().max() < 0.02
    assert drawn["sliders"].abs().max() <= 0.5


def test_a_shadow_is_dark_below_its_point_only_and_soft_at_its_sides() -> None:
    images, step = torch.full((60, 1, 80, 80), 0.5), Shadow(strength=(0.6, 0.6), p=1.0)
    drawn = draw(step, 60)
    kept = step(images, drawn, None)[:, 0] / 0.5
    assert kept.diff(dim=2).abs().max() < 0.25
    for i in range(60):
        x, y = ((drawn["top"][i] + 1) / 2 * 80).tolist()
        above, below = kept[i, : max(0, int(y) - 10)], kept[i, 79]
        assert (above > 0.98).all()
        assert 0.38 < below.min() < 0.65
        reached = x + float(drawn["lean"][i]) * (79.5 - y)
        assert int(below.argmin()) + 0.5 == pytest.approx(min(max(reached, 0.5), 79.5), abs=1.5)
        assert (below < 0.9).float().mean() < 0.4  # most of the width stays


def test_a_shadow_begins_inside_the_sectors_box() -> None:
    top = draw(Shadow(), 300)["top"].numpy()
    assert (top >= BOX[0, :2]).all() and (top <= BOX[0, 2:]).all()


# Display, cutout, crop.


def test_the_display_follows_its_four_factors() -> None:
    images, step = tissue(6), Gain(brightness=0.3, contrast=0.4, gamma=0.5, dynamic_range=0.3)
    sector = sector_of(images)
    drawn = draw(step, 6)
    changed = step(images, drawn, sector)
    for i in range(6):
        stretch, gamma, contrast, gain = (float(drawn[k][i]) for k in ("stretch", "gamma", "contrast", "gain"))
        inside = images[i][sector[i]].double().numpy()
        bent = np.maximum(1 - (1 - inside) * stretch, 0) ** gamma
        expected = np.clip((bent.mean() + (bent - bent.mean()) * contrast) * gain, 0, 1)
        assert changed[i][sector[i]].numpy() == pytest.approx(expected, abs=1e-5)


def test_the_display_keeps_the_order_of_greys() -> None:
    ramp, step = torch.linspace(0, 1, 64).view(1, 1, 8, 8).repeat(50, 1, 1, 1), Gain()
    assert (step(ramp, draw(step, 50), None).view(50, 64).diff(dim=1) >= 0).all()


@pytest.mark.parametrize("fill", ["mean", "black"])
def test_a_cutout_erases_rectangles_of_the_drawn_area_inside_the_box(fill: str) -> None:
    images, step = tissue(40, (80, 80)), Cutout(fill=fill, p=1.0)
    sector = sector_of(images)
    changed = step(images, draw(step, 40), sector)
    box = 80 * 80 * float((BOX[0, 2] - BOX[0, 0]) * (BOX[0, 3] - BOX[0, 1])) / 4
    for image, inside, got in zip(images[:, 0], sector[:, 0], changed[:, 0], strict=True):
        rows, columns = torch.nonzero(got != image, as_tuple=True)
        grey = image[inside].mean() if fill == "mean" else torch.tensor(0.0)
        assert torch.allclose(got[rows, columns], grey, atol=1e-5)
        height, width = (int(at.max() - at.min()) + 1 for at in (rows, columns))
        assert len(rows) == height * width or not inside[rows.min() : rows.max() + 1, columns.min()].all()
        assert 0.01 * box < len(rows) < 0.1 * box


def test_a_cutout_cuts_as_often_and_as_many_as_it_is_told() -> None:
    holes = draw(Cutout(p=0.3, holes=3), 1000)["holes"]
    assert holes.shape == (1000, 3, 4)
    empty = (holes[..., 2:] == holes[..., :2]).all(-1)
    assert float((~empty).float().mean()) == pytest.approx(0.3, abs=0.05)
    assert (empty.all(1) == empty.any(1)).all()


@pytest.mark.parametrize("local", [False, True])
def test_a_sector_crop_is_square_upright_and_inside_the_box(local: bool) -> None:
    matrix = draw(SectorCrop(), 500, local=local)["affine"].numpy()
    assert (matrix[:, 0, 1] == 0).all() and (matrix[:, 1, 0] == 0).all()
    assert np.allclose(np.abs(matrix[:, 0, 0]), matrix[:, 1, 1])
    half = matrix[:, 1, 1, None]
    assert (matrix[:, :2, 2] - half >= BOX[0, :2] - 1e-6).all() and (matrix[:, :2, 2] + half <= BOX[0, 2:] + 1e-6).all()
    area = (half / 0.625) ** 2  # the box is 1.25 wide and 1.5 high
    low, high = (0.1, 0.3) if local else (0.3, 1.0)
    assert low - 1e-5 <= area.min() < low + 0.02 and high - 0.02 < area.max() <= high + 1e-5
    assert (matrix[:, 0, 0] < 0).mean() == pytest.approx(0.5, abs=0.08)


# Recipes and composition.


def test_the_recipes_are_a_crop_and_what_grey_images_can_have_of_the_rest() -> None:
    for recipe, kinds in ((simclr, "Spatial Gain Blur"), (uscl, "Spatial Gain"), (ivpp, "Spatial Gain Blur")):
        assert [type(step).__name__ for step in recipe()] == kinds.split()
    crop, jitter, blur = simclr(strength=1.0)
    assert (crop.scale, crop.degrees, jitter.contrast, jitter.brightness, jitter.p) == ((0.08, 1.0), 0.0, 0.8, 0.8, 0.8)
    assert (blur.p, blur.sigma[1] * 224) == (0.5, 2.0)
    crop = uscl()[0]
    assert (crop.scale, crop.ratio, crop.flip, crop.degrees) == ((0.8, 1.0), (0.8, 1.25), 0.5, 0.0)


def test_what_is_not_in_a_paper_is_marked(installed: Registry) -> None:
    marked = {e.name for e in installed.entries("augmentation") if e.reconstruction}
    assert marked == {"freq", "freq-only", "uscl", "ivpp"}
    assert {*STEPS, "simclr", "uscl", "ivpp"} <= {e.name for e in installed.entries("augmentation")}


def test_a_sum_of_names_does_one_after_the_other(usbench: Any, tmp_path: Any, tiny_pack: Any) -> None:
    sheet = tmp_path / "sheet.png"
    said = usbench("preview", "--aug", "spatial+speckle+shadow:p=1.0", "--data", tiny_pack, "--size", "32", "-o", sheet)
    assert said.code == 0 and sheet.stat().st_size > 10_000, said.err
    images = (tissue(3, (40, 40)) * 255).to(torch.uint8)
    sector = torch.ones_like(images)
    crop, noise = (registry().get("augmentation", name).build() for name in ("spatial", "speckle"))
    both, alone = Views([crop, noise], 32, (2, 0)), Views([crop], 32, (2, 0))
    drawn = both.draw(generator("sum"), BOX.repeat(3, 0), CPU)
    made, geometry, _ = both(images, sector, drawn)
    cropped, same, _ = alone(images, None, alone.draw(generator("sum"), BOX.repeat(3, 0), CPU))
    assert all(torch.equal(one, two) for one, two in zip(geometry, same, strict=True))
    grey = torch.cat(cropped) * DEVIATION + MEAN
    expected = normalise(noise(grey, drawn[0].steps[1], None))
    torch.testing.assert_close(torch.cat(made), expected, atol=1e-4, rtol=0)


# What is refused.


@pytest.mark.parametrize(
    ("step", "options", "said"),
    [
        (Speckle, {"strength": (0.5, 1.5)}, "strength is 0.5/1.5"),
        (Speckle, {"grain": (0.0, 0.1)}, "grain is 0.0/0.1"),
        (Blur, {"sigma": (-0.1, 0.1)}, "sigma is -0.1/0.1"),
        (Blur, {"p": -1.0}, "p is -1.0"),
        (TGC, {"strength": (0.5, 0.4)}, "strength is 0.5/0.4"),
        (TGC, {"sliders": 1}, "sliders is 1"),
        (Attenuation, {"rate": (-4.0, 1.0)}, "rate is -4.0/1.0"),
        (Shadow, {"strength": (0.3, 1.8)}, "strength is 0.3/1.8"),
        (Shadow, {"width": (0.2, 0.1)}, "width is 0.2/0.1"),
        (Shadow, {"spread": (-0.2, 0.1)}, "spread is -0.2/0.1"),
        (Shadow, {"p": float("nan")}, "p is nan"),
        (Gain, {"brightness": 1.1}, "brightness is 1.1"),
        (Gain, {"contrast": -0.1}, "contrast is -0.1"),
        (Gain, {"gamma": 3.0}, "gamma is 3.0"),
        (Gain, {"dynamic_range": float("nan")}, "dynamic_range is nan"),
        (Gain, {"p": 2.0}, "p is 2.0"),
        (Cutout, {"area": (0.1, 1.1)}, "area is 0.1/1.1"),
        (Cutout, {"ratio": (0.0, 1.0)}, "ratio is 0.0/1.0"),
        (Cutout, {"holes": 0}, "holes is 0"),
        (Cutout, {"fill": "white"}, "fill is 'white'"),
        (SectorCrop, {"scale": (0.0, 1.0)}, "scale is 0.0/1.0"),
        (SectorCrop, {"local_scale": (0.5, 1.1)}, "local_scale is 0.5/1.1"),
        (SectorCrop, {"flip": 1.1}, "flip is 1.1"),
        (simclr, {"strength": 2.0}, "strength is 2.0"),
        (uscl, {"jitter": 2.0}, "brightness is 2.0"),
        (ivpp, {"blur": 2.0}, "p is 2.0"),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(step: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        step(**options)


def test_a_refused_option_ends_in_a_sentence_with_the_plugins_name(installed: Registry) -> None:
    with pytest.raises(UsbenchError, match=r"augmentation 'cutout' refuses fill='white': fill is 'white'"):
        installed.get("augmentation", "cutout").build(fill="white")
