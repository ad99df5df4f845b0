"""The phantom keeps what it promises: the same bytes, exact masks, three scanners that differ."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, uniform_filter
from usbench_phantom.dataset import CLIP_FPS, CLIP_FRAMES, Phantom
from usbench_phantom.domains import DOMAINS

from usbench import Item

BENIGN, MALIGNANT, NORMAL = range(3)
SIZE = 96


@functools.cache
def items(domain: str, patients: int = 24, seed: int = 0) -> tuple[Item, ...]:
    return tuple(Phantom(domain, patients=patients, size=SIZE, seed=seed).items(None))


def same(one: Item, other: Item) -> bool:
    return one.name == other.name and np.array_equal(one.image, other.image) and np.array_equal(one.mask, other.mask)


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_same_options_give_the_same_bytes(domain: str) -> None:
    again = Phantom(domain, patients=4, size=SIZE).items(None)
    assert all(same(one, other) for one, other in zip(items(domain), again, strict=False))


def test_a_patient_does_not_depend_on_how_many_there_are() -> None:
    few = {item.name: item for item in items("l7", patients=3)}
    many = {item.name: item for item in items("l7") if item.name in few}
    assert few.keys() == many.keys()
    assert all(same(few[name], many[name]) for name in few)


def test_another_seed_and_another_domain_are_other_patients() -> None:
    first = [items("l7", patients=2)[0], items("l7", patients=2, seed=1)[0], items("l12")[0]]
    assert len({item.image.tobytes() for item in first}) == 3


@pytest.mark.parametrize("domain", DOMAINS)
def test_count_is_exact_and_names_are_unique(domain: str) -> None:
    found = items(domain)
    assert Phantom(domain, patients=24, size=SIZE).count(None) == len(found) == len({item.name for item in found})


def test_the_default_patients_make_about_360_images() -> None:
    assert 330 <= Phantom().count(None) <= 390


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_mask_lies_in_the_sector_and_is_empty_only_for_a_normal_image(domain: str) -> None:
    for item in items(domain):
        assert item.image.shape == item.mask.shape == item.sector.shape == (SIZE, SIZE)
        assert item.image.dtype == np.uint8 and item.mask.dtype == np.bool_
        assert not (item.mask & ~item.sector).any()
        assert item.mask.any() == (item.label != NORMAL)


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_class_is_present_and_a_patient_has_one(domain: str) -> None:
    labels = {item.patient: set() for item in items(domain)}
    for item in items(domain):
        labels[item.patient].add(item.label)
    assert all(len(found) == 1 for found in labels.values())
    assert set.union(*labels.values()) == {BENIGN, MALIGNANT, NORMAL}


@pytest.mark.parametrize("domain", DOMAINS)
def test_outside_the_sector_is_black(domain: str) -> None:
    assert all((item.image[~item.sector] == 0).all() for item in items(domain))
    assert items(domain)[0].sector.all() == (domain != "c5")


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_frames_of_a_clip_overlap_and_move(domain: str) -> None:
    clips = {item.video: [] for item in items(domain) if item.video}
    for item in items(domain):
        clips.get(item.video, []).append(item)
    assert 0 < len(clips) < len({item.patient for item in items(domain)})
    for frames in clips.values():
        assert [item.frame for item in frames] == list(range(CLIP_FRAMES))
        assert np.allclose(np.diff([item.time for item in frames]), 1 / CLIP_FPS)
        grey = [uniform_filter(item.image.astype(float), 3)[item.sector] for item in frames]
        near, far = np.corrcoef(grey[2], grey[3])[0, 1], np.corrcoef(grey[0], grey[-1])[0, 1]
        assert 0.7 < near < 0.999 and far < near
        if frames[0].mask.any():
            places = [np.argwhere(item.mask).mean(axis=0) for item in frames]
            assert abs(places[0] - places[-1]).max() > 1
            for one, other in itertools.pairwise(frames):
                assert (one.mask & other.mask).sum() > 0.35 * (one.mask | other.mask).sum()


def test_the_moving_mask_follows_the_moving_tissue() -> None:
    """Frames registered by their masks agree better than frames left in place."""
    gains = []
    for video in {item.video for item in items("l7") if item.video and item.mask.any()}:
        first, last = (item for item in items("l7") if item.video == video and item.frame in (1, 4))
        moved = np.argwhere(last.mask).mean(axis=0)[1] - np.argwhere(first.mask).mean(axis=0)[1]
        rolled = np.roll(last.image, -round(moved), axis=1)
        inner = np.s_[10:, 16:-16]
        agree = [np.corrcoef(first.image[inner].ravel(), image[inner].ravel())[0, 1] for image in (last.image, rolled)]
        gains.append(agree[1] - agree[0])
    assert np.mean(gains) > 0.05


def speckle_width(item: Item, axis: int) -> float:
    """Correlation of neighbouring pixels of the speckle, as the distance in mm at which a Gaussian falls by half."""
    middle = item.image[SIZE // 4 : -SIZE // 4, SIZE // 3 : -SIZE // 3].astype(float)
    grain = middle - uniform_filter(middle, (9, 9))
    grain = np.moveaxis(grain, axis, 0)
    lag = (grain[1:] * grain[:-1]).mean() / (grain**2).mean()
    return item.pixel_mm * float(np.sqrt(np.log(2) / -np.log(np.clip(lag, 0.01, 0.99))))


def test_the_lower_the_frequency_the_coarser_the_speckle() -> None:
    across = {d: np.median([speckle_width(item, axis=1) for item in items(d)]) for d in DOMAINS}
    along = {d: np.median([speckle_width(item, axis=0) for item in items(d)]) for d in DOMAINS}
    assert across["l12"] < 0.85 * across["l7"] < 0.85 * 0.85 * across["c5"]
    assert along["l12"] < along["l7"] < along["c5"]


def test_the_scanners_differ_in_their_grey_histograms() -> None:
    shares = {}
    for domain in DOMAINS:
        grey = np.concatenate([item.image[item.sector] for item in items(domain)])
        shares[domain] = np.histogram(grey, bins=16, range=(0, 256))[0] / grey.size
    for one, other in (("l7", "l12"), ("l7", "c5"), ("l12", "c5")):
        assert abs(shares[one] - shares[other]).sum() / 2 > 0.08


def test_malignant_outlines_are_less_compact_than_benign_ones() -> None:
    compact: dict[int, list[float]] = {BENIGN: [], MALIGNANT: []}
    for item in Phantom("l7", patients=40, size=SIZE).items(None):
        if item.mask.any() and not item.video:
            border = item.mask & ~binary_erosion(item.mask)
            compact[item.label].append(item.mask.sum() / border.sum() ** 2)
    assert np.median(compact[MALIGNANT]) < 0.85 * np.median(compact[BENIGN])


def test_lesions_are_mostly_darker_than_their_surroundings_and_not_all_by_much() -> None:
    contrast = []
    for item in items("l7"):
        if item.mask.any():
            rows, columns = np.nonzero(item.mask)
            box = np.zeros_like(item.mask)
            box[max(rows.min() - 6, 0) : rows.max() + 6, max(columns.min() - 6, 0) : columns.max() + 6] = True
            contrast.append(item.image[box & ~item.mask].mean() - item.image[item.mask].mean())
    assert np.mean(np.array(contrast) > 0) > 0.9
    assert np.percentile(contrast, 10) < 25 and np.percentile(contrast, 75) > 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"domain": "l9"}, "domains are l7, l12, c5"),
        ({"patients": 0}, "at least one patient"),
        ({"size": 16}, "at least 32 pixels"),
        ({"seed": -1}, "must not be negative"),
    ],
)
def test_a_bad_option_is_refused_in_a_sentence(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refusal:
        Phantom(**options)
    assert str(refusal.value).endswith(".")


def test_the_smallest_size_works() -> None:
    for domain in DOMAINS:
        assert all(item.image.shape == (32, 32) for item in Phantom(domain, patients=3, size=32).items(None))
