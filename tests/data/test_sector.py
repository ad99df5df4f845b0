"""The insonified region, against sectors that are known because they were drawn."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from usbench.data.sector import find_sector, with_sector
from usbench.items import Item


def speckle(shape: tuple[int, int], seed: int = 0, mean: float = 60.0) -> np.ndarray:
    return np.random.default_rng(seed).rayleigh(mean / 1.25, shape).clip(0, 255).astype(np.uint8)


def fan(height: int = 256, width: int = 320, *, inner: float = 60.0) -> np.ndarray:
    """A curved array: between two arcs around an apex above the image, 35 degrees to either side."""
    rows, columns = np.mgrid[:height, :width]
    y, x = rows + inner - 10, columns - width / 2
    radius = np.hypot(y, x)
    return (radius > inner) & (radius < height + inner - 15) & (np.abs(np.arctan2(x, y)) < np.deg2rad(35))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_a_full_image_is_all_sector() -> None:
    assert find_sector(speckle((200, 300))).all()
    assert find_sector(np.zeros((50, 60), np.uint8)).all()


@pytest.mark.parametrize("noise", [0, 2])
@pytest.mark.parametrize("inner", [20.0, 60.0, 140.0])
def test_a_fan_is_found_with_its_arc(inner: float, noise: int) -> None:
    truth = fan(inner=inner)
    image = np.where(truth, speckle(truth.shape), np.random.default_rng(1).integers(0, noise + 1, truth.shape))
    found = find_sector(image.astype(np.uint8))
    assert overlap(found, truth) > 0.95
    assert (found & truth).sum() > 0.98 * truth.sum()


def test_black_borders_and_a_text_margin_are_left_out() -> None:
    truth = np.zeros((300, 400), np.bool_)
    truth[30:270, 60:330] = True
    image = Image.fromarray(np.where(truth, speckle(truth.shape), 0).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for row in range(5):
        draw.text((340, 40 + 30 * row), f"Gain {row}", fill=255)
    draw.text((5, 5), "HOSPITAL 12:30", fill=255)
    draw.rectangle((20, 50, 30, 200), fill=180)  # a grey bar
    assert overlap(find_sector(np.asarray(image)), truth) > 0.95


def test_shadows_cysts_and_fading_depth_lie_inside() -> None:
    image = speckle((240, 300)).astype(float)
    image *= np.linspace(1, 0, 240)[:, None] ** 2
    image[60:, 200:] = 0  # a shadow that reaches the corner
    image[40:90, 50:120] = 0
    assert find_sector(image.astype(np.uint8)).all()
    truth = fan()
    image = np.where(truth, speckle(truth.shape), 0).astype(np.uint8)
    image[100:200, 130:190] = 0
    assert overlap(find_sector(image), truth) > 0.95


def test_the_size_of_the_image_does_not_matter() -> None:
    truth = fan(768, 960, inner=180)
    image = np.where(truth, speckle(truth.shape), 0).astype(np.uint8)
    assert overlap(find_sector(image), truth) > 0.95
    assert find_sector(np.full((3, 2), 90, np.uint8)).shape == (3, 2)


def test_a_sector_that_the_set_knows_is_kept() -> None:
    image, known = speckle((40, 50)), np.eye(40, 50, dtype=np.bool_)
    assert with_sector(Item("a", image, sector=known)).sector is known
    found = with_sector(Item("a", image)).sector
    assert found is not None and found.all()


def test_it_takes_milliseconds() -> None:
    image = np.where(fan(256, 256), speckle((256, 256)), 0).astype(np.uint8)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        find_sector(image)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02
