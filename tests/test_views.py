"""Views: one affine a sample, one resample, and a geometry that says where every pixel came from."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from usbench_freq.frequency import Frequency, freq
from usbench_freq.spatial import Spatial

from usbench import Augmentation
from usbench.contracts import Image
from usbench.data.feed import Batches, Feed, sector_boxes
from usbench.data.pack import Pack
from usbench.draws import generator
from usbench.items import Item
from usbench.views import DEVIATION, MEAN, Views, affine, between, flip_rotate, normalise, resample

CPU = torch.device("cpu")
WHOLE = np.array([[-1, -1, 1, 1]], np.float32)


class Fixed(Augmentation):
    """A spatial step whose affine is given, the same for every sample."""

    def __init__(self, matrix: np.ndarray) -> None:
        super().__init__()
        self.matrix = matrix

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        return {"affine": np.broadcast_to(self.matrix, (len(boxes), 3, 3))}


class Boxes(Augmentation):
    """A step that keeps the boxes it was shown."""

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        self.seen = boxes.copy()
        return {}


def one_affine(x: float, y: float, half: tuple[float, float], degrees: float, flip: bool) -> np.ndarray:
    return affine(np.array([[x, y]]), np.array([half]), np.array([degrees]), np.array([flip]))[0]


def axis(size: int) -> Tensor:
    """The coordinate of each pixel's centre."""
    return (torch.arange(size) * 2 + 1) / size - 1


def dots(size: int, places: np.ndarray, width: float = 0.06) -> Tensor:
    """(n, 1, size, size) uint8: a bright dot on black at each (x, y) in [-1, 1]."""
    at = torch.from_numpy(places).float()
    x = torch.exp(-((axis(size)[None] - at[:, :1]) ** 2) / (2 * width**2))
    y = torch.exp(-((axis(size)[None] - at[:, 1:]) ** 2) / (2 * width**2))
    return (255 * y[:, :, None] * x[:, None])[:, None].round().to(torch.uint8)


def find(views: Tensor) -> Tensor:
    """(n, 2) where the dot of each normalised view is: its centre of mass."""
    grey = (views[:, 0] * DEVIATION + MEAN).clamp_min(0)
    mass = grey.sum((1, 2))
    where = axis(views.shape[-1])
    return torch.stack([(grey.sum(1) * where).sum(1) / mass, (grey.sum(2) * where).sum(1) / mass], 1)


def waves(size: int) -> Tensor:
    """A smooth picture that neither flip nor rotation leaves alone."""
    x, y = axis(size)[None], axis(size)[:, None]
    return (0.5 + 0.2 * torch.sin(3 * x + y) + 0.2 * torch.cos(2 * y - 1.5 * x) * x)[None, None]


def speckle(count: int, size: int) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 1, size, size)).astype(np.uint8))


def test_an_affine_is_flip_then_scale_then_rotation_then_move() -> None:
    matrix = one_affine(0.1, -0.2, (0.5, 0.25), 90.0, True)
    # The view's right edge: flipped to the left, scaled to −0.5, turned by a quarter to (0, −0.5), moved.
    assert matrix @ np.array([1, 0, 1]) == pytest.approx([0.1, -0.7, 1], abs=1e-6)
    assert matrix @ np.array([0, 1, 1]) == pytest.approx([-0.15, -0.2, 1], abs=1e-6)


def test_the_resample_reads_where_an_affine_grid_points() -> None:
    planes = torch.rand(3, 2, 40, 40, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(1)
    matrix = affine(
        rng.uniform(-0.4, 0.4, (3, 2)), rng.uniform(0.2, 1.2, (3, 2)), rng.uniform(-40, 40, 3), rng.random(3) < 0.5
    )
    theta = torch.from_numpy(matrix[:, :2].copy())
    grid = functional.affine_grid(theta, [3, 2, 24, 24], align_corners=False)
    expected = functional.grid_sample(planes, grid, align_corners=False)
    torch.testing.assert_close(resample(planes, theta, 24), expected, atol=2e-5, rtol=0)


def test_without_steps_a_view_is_the_image_itself() -> None:
    images = speckle(2, 32)
    views = Views([], 32, (2, 0))
    made, geometry, sectors = views(images, None, views.draw(generator(0), WHOLE.repeat(2, 0), CPU))
    assert len(made) == len(geometry) == 2 and sectors == []
    for view, where in zip(made, geometry, strict=True):
        torch.testing.assert_close(view, normalise(images / 255), atol=1e-5, rtol=0)
        assert torch.equal(where, torch.eye(2, 3).expand(2, 2, 3))


def test_one_composed_affine_equals_the_spatial_steps_one_after_the_other() -> None:
    first = one_affine(0.1, -0.1, (0.7, 0.6), 20.0, True)
    second = one_affine(-0.1, 0.15, (0.5, 0.6), -35.0, False)
    third = one_affine(0.05, 0.0, (0.8, 0.8), 10.0, True)
    size, picture = 128, waves(128)
    slow = picture
    for matrix in (first, second, third):
        slow = resample(slow, torch.from_numpy(matrix[None, :2].copy()), size)
    views = Views([Fixed(first), Fixed(second), Fixed(third)], size, (1, 0))
    drawn = views.draw(generator(0), WHOLE, CPU)
    fast = resample(picture, drawn[0].matrix, size)
    torch.testing.assert_close(fast, slow, atol=2e-3, rtol=0)
    assert (fast - picture).abs().mean() > 0.05  # the steps did something


def test_a_step_after_a_crop_starts_from_the_whole_crop() -> None:
    seen = Boxes()
    boxes = np.array([[-0.5, -0.4, 0.6, 0.9], [-1, -1, 0, 0]], np.float32)
    Views([seen, Fixed(np.eye(3)), last := Boxes()], 32, (2, 1)).draw(generator(0), boxes, CPU)
    assert np.array_equal(seen.seen, boxes)
    assert np.array_equal(last.seen, np.tile(WHOLE, (2, 1)))


def peak(views: Tensor) -> Tensor:
    """(n, 2) where the brightest pixel of each view is."""
    size = views.shape[-1]
    at = views.flatten(1).argmax(1)
    return torch.stack([axis(size)[at % size], axis(size)[at // size]], 1)


@pytest.mark.parametrize(
    ("steps", "look", "pixels"),
    [(lambda: [Spatial(degrees=25.0)], find, 0.5), (freq, peak, 1.5)],
    ids=["spatial", "freq"],
)
def test_a_dot_of_the_image_is_found_where_the_geometry_says(
    steps: Callable[[], list[Augmentation]], look: Callable[[Tensor], Tensor], pixels: float
) -> None:
    count = 12
    places = np.random.default_rng(3).uniform(-0.5, 0.5, (count, 2))
    views = Views(steps(), 64, (2, 2))
    for step in views.steps:
        if isinstance(step, Frequency):
            step.mix = 0.0  # the amplitude of another dot is a dot, too
    made, geometry, _ = views(dots(80, places), None, views.draw(generator(5), WHOLE.repeat(count, 0), CPU))
    looked_at = 0
    for view, where in zip(made, geometry, strict=True):
        there = torch.linalg.solve(where[:, :, :2], torch.from_numpy(places).float() - where[:, :, 2])
        zoom = 1 / where[:, :, :2].det().abs().sqrt()
        whole = (there.abs().amax(1) + 4 * 0.06 * zoom * 1.3) < 1  # the dot lies in the view with all its light
        looked_at += int(whole.sum())
        assert ((look(view) - there)[whole].abs() < pixels * 2 / view.shape[-1]).all()
    assert looked_at >= 12


def test_between_maps_a_place_of_one_view_to_the_same_place_in_the_other() -> None:
    count = 16
    places = np.random.default_rng(4).uniform(-0.3, 0.3, (count, 2))
    views = Views([Spatial(scale=(0.6, 1.0), degrees=25.0)], 64, (2, 0))
    made, geometry, _ = views(dots(80, places), None, views.draw(generator(6), WHOLE.repeat(count, 0), CPU))
    here, there = find(made[0]), find(made[1])
    matrix = between(geometry[0], geometry[1])
    mapped = (matrix[:, :, :2] @ here[:, :, None])[:, :, 0] + matrix[:, :, 2]
    inside = (here.abs().amax(1) < 0.6) & (there.abs().amax(1) < 0.6)
    assert inside.sum() >= 8
    assert (mapped - there)[inside].abs().max() < 1.5 / 64
    assert (here - there)[inside].abs().max() > 0.2  # the views differ, so the mapping had something to do


def test_between_a_view_and_itself_is_the_identity_and_back_is_the_inverse() -> None:
    views = Views([Spatial()], 32, (2, 0))
    matrix = views.draw(generator(1), WHOLE.repeat(5, 0), CPU)[0].matrix
    one, other = matrix.chunk(2)
    torch.testing.assert_close(between(one, one), torch.eye(2, 3).expand(5, 2, 3), atol=1e-5, rtol=0)
    corner = torch.tensor([[0.3], [-0.7]])
    there = between(one, other)
    back = between(other, one)
    mapped = there[:, :, :2] @ corner + there[:, :, 2:]
    torch.testing.assert_close(back[:, :, :2] @ mapped + back[:, :, 2:], corner.expand(5, 2, 1), atol=1e-4, rtol=0)


def test_draws_depend_on_their_generator_alone() -> None:
    views = Views(freq(), 32, (2, 3))

    def drawn(key: int) -> list[Tensor]:
        return [
            t for each in views.draw(generator(key), WHOLE.repeat(4, 0), CPU) for t in (each.matrix, *flat(each.steps))
        ]

    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    first = drawn(7)
    torch.manual_seed(2), np.random.seed(2), random.seed(2)
    again = drawn(7)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0], drawn(8)[0])


def flat(steps: list[dict[str, Tensor]]) -> Iterator[Tensor]:
    for step in steps:
        yield from step.values()


@pytest.mark.parametrize("state", [torch.get_rng_state, lambda: torch.from_numpy(np.random.get_state()[1].astype(int))])
def test_neither_draws_nor_views_touch_the_global_generators(state: Callable[[], Tensor]) -> None:
    before = state().clone()
    views = Views(freq(), 32, (2, 1))
    views(speckle(4, 40), None, views.draw(generator(0), WHOLE.repeat(4, 0), CPU))
    assert torch.equal(before, state())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_sees_the_draws_of_the_host() -> None:
    views = Views(freq(), 32, (2, 1))
    device = torch.device("cuda")
    here, there = (views.draw(generator(0), WHOLE.repeat(4, 0), where) for where in (CPU, device))
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.matrix, other.matrix.cpu())
        assert all(torch.equal(a, b.cpu()) for a, b in zip(flat(one.steps), flat(other.steps), strict=True))
    on_host = views(speckle(4, 40), None, here)[0]
    on_device = views(speckle(4, 40).to(device), None, there)[0]
    for one, other in zip(on_host, on_device, strict=True):
        torch.testing.assert_close(one, other.cpu(), atol=2e-3, rtol=0)


def test_global_and_local_views_have_their_own_sizes_and_counts() -> None:
    views = Views([Spatial()], 96, (2, 3))
    made, geometry, _ = views(speckle(2, 100), None, views.draw(generator(0), WHOLE.repeat(2, 0), CPU))
    assert [tuple(view.shape) for view in made] == [(2, 1, 96, 96)] * 2 + [
        (2, 1, views.local_size, views.local_size)
    ] * 3
    assert views.local_size < 96 and len(geometry) == 5
    areas = [where[:, :, :2].det().abs() for where in geometry]
    assert torch.cat(areas[:2]).min() >= 0.3 * 0.75 and torch.cat(areas[2:]).max() <= 0.3 * 1.001


@pytest.mark.parametrize("size", [32, 64, 96, 160, 224, 384])
def test_a_local_view_fits_a_five_level_encoder_and_is_no_larger_than_a_global_one(size: int) -> None:
    local = Views([], size, (2, 1)).local_size
    assert local % 32 == 0 and 32 <= local <= size


# The sector: where crops start, and what frequency steps leave alone.


def with_sector(patients: int = 6, size: int = 64) -> Iterator[Item]:
    """Speckle inside a sector that is a box off the middle, black outside it."""
    rng = np.random.default_rng(0)
    for index in range(patients):
        sector = np.zeros((size, size), np.bool_)
        sector[8 + index : 50, 16 : 60 - index] = True
        image = np.where(sector, rng.integers(40, 255, (size, size)), 0).astype(np.uint8)
        yield Item(name=f"s{index}", image=image, sector=sector, patient=f"s{index}")


@pytest.fixture(scope="module")
def pack(make_pack: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return Pack(make_pack(tmp_path_factory.mktemp("views") / "sectors.h5", with_sector(), name="sectors"))


def batches(
    pack: Pack, steps: list[Augmentation], *, seed: int = 0, size: int = 64, counts: tuple[int, int] = (2, 1)
) -> Batches:
    feed = Feed([(pack, np.arange(pack.count))], size, CPU, sectors=True)
    return Batches(feed, Views(steps, size, counts), Image(), batch=3, total=10, seed=seed)


def test_a_step_has_the_same_views_for_whoever_asks_and_another_step_has_others(pack: Pack) -> None:
    one, other = batches(pack, freq()), batches(pack, freq())
    other(0), other(3)  # asked for something else before
    first, again, next_ = one(4), other(4), one(5)
    for name in ("views", "geometry", "sectors"):
        assert all(torch.equal(a, b) for a, b in zip(getattr(first, name), getattr(again, name), strict=True))
    assert torch.equal(first.index, again.index)
    assert first.rng.random() == again.rng.random()
    assert not torch.equal(first.geometry[0], next_.geometry[0])
    assert not torch.equal(first.geometry[0], first.geometry[1])
    assert not torch.equal(first.geometry[0], batches(pack, freq(), seed=1)(4).geometry[0])


def test_the_box_of_a_sector_is_its_outermost_edges() -> None:
    sector = np.zeros((3, 10, 10), np.bool_)
    sector[0, 2:6, 5] = True
    sector[1, 0, 0] = sector[1, 9, 9] = True  # the third has none: all of the image
    expected = [[0.0, -0.6, 0.2, 0.2], [-1, -1, 1, 1], [-1, -1, 1, 1]]
    assert sector_boxes(sector) == pytest.approx(np.array(expected), abs=1e-6)


def test_crops_start_from_the_box_of_the_sector() -> None:
    box = np.array([[-0.6, -0.3, 0.2, 0.9]], np.float32)
    for local in (False, True):
        drawn = Spatial(degrees=0.0).draw(generator(0), box.repeat(500, 0), local=local)["affine"]
        corners = drawn @ np.array([[-1, 1, -1, 1], [-1, -1, 1, 1], [1, 1, 1, 1]])
        low, high = corners.min((0, 2)), corners.max((0, 2))
        assert (low[:2] >= box[0, :2] - 1e-5).all() and (high[:2] <= box[0, 2:] + 1e-5).all()
        assert (low[:2] <= box[0, :2] + 0.05).all() and (high[:2] >= box[0, 2:] - 0.05).all()  # and reach all of it


def test_the_area_of_a_crop_is_a_share_of_the_sectors_box() -> None:
    box = np.array([[-0.5, -0.5, 0.5, 0.5]], np.float32)
    drawn = Spatial(scale=(0.4, 0.6), ratio=(0.9, 1.1)).draw(generator(0), box.repeat(500, 0), local=False)["affine"]
    area = np.abs(np.linalg.det(drawn)) / 0.25
    assert area.min() >= 0.399 and area.max() <= 0.601 and np.ptp(area) > 0.15


def test_outside_the_sector_a_frequency_step_leaves_black_exactly_black(pack: Pack) -> None:
    black = normalise(torch.zeros(1))
    batch = batches(pack, [Frequency(band=1.0, cut=1.0, mix=1.0)])(0)
    for view, sector in zip(batch.views, batch.sectors, strict=True):
        if view.shape[-1] == 64:  # not resampled, so black up to the edge
            assert torch.equal(view[sector == 0], black.expand(int((sector == 0).sum())))
            assert (sector == 0).any()


def test_outside_the_sector_a_frequency_step_changes_no_pixel_and_inside_it_does(pack: Pack) -> None:
    spatial, frequency = freq(band=1.0, mix=1.0)
    both, half = Views([spatial, frequency], 64, (2, 1)), Views([spatial], 64, (2, 1))
    feed = Feed([(pack, np.arange(pack.count))], 64, CPU, sectors=True)
    drawn = both.draw(generator(2), feed.boxes, CPU)
    changed, _, sectors = both(feed.images, feed.sector, drawn)
    for each in drawn:
        each.steps = each.steps[:1]
    before = half(feed.images, feed.sector, drawn)[0]
    outside = 0
    for view, plain, sector in zip(changed, before, sectors, strict=True):
        assert torch.equal(view[sector == 0], plain[sector == 0])
        assert (view != plain)[sector == 1].float().mean() > 0.9
        outside += int((sector == 0).sum())
    assert outside > 100


def test_every_step_is_given_its_own_parameters_and_the_sector(pack: Pack) -> None:
    class Marks(Augmentation):
        wants_sector = True

        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
            return {"value": np.full(len(boxes), self.value + local)}

        def forward(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
            assert sector is not None and sector.dtype == torch.bool
            return torch.where(sector, images * 0 + drawn["value"][:, None, None, None], images)

    batch = batches(pack, [Marks(9.0), Marks(0.25)])(0)
    for view, sector, value in zip(batch.views, batch.sectors, (0.25, 0.25, 1.25), strict=True):
        assert view[sector == 1] == pytest.approx((value - MEAN) / DEVIATION, abs=1e-5)


def test_the_fine_tunes_augmentation_flips_half_and_turns_within_its_degrees() -> None:
    matrix = flip_rotate(generator(0), 400, 15.0)
    flipped = np.linalg.det(matrix) < 0
    assert 0.4 < flipped.mean() < 0.6
    assert np.abs(np.linalg.det(matrix)) == pytest.approx(1, abs=1e-5)
    turned = np.rad2deg(np.arcsin(matrix[:, 1, 0] * np.where(flipped, -1, 1)))
    assert -15 <= turned.min() < -13 and 13 < turned.max() <= 15
    assert (matrix[:, :2, 2] == 0).all()
