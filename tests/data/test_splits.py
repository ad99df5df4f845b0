"""Splits over many random data sets: no group on two sides, nested, stratified, and the same whenever asked."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from usbench.data.cohort import ALL, TEST, UNSEEN, Cohort, rows_tested
from usbench.data.groups import group_labels, take_inner
from usbench.data.packing import link_groups
from usbench.data.splits import (
    INNER_MIN,
    TEST_FOLDS,
    Division,
    Split,
    Wanted,
    divide,
    fold_split,
    fraction_of,
    list_digest,
    split,
)
from usbench.errors import UsbenchError

WORLDS = range(200)


@functools.cache
def world(seed: int) -> SimpleNamespace:
    """A made-up set: patients with few or many images, some without masks, some in shared videos, 1 to 3 classes;
    every third has official folds that now and then cut a group."""
    rng = np.random.default_rng(seed)
    patients = int(rng.integers(12, 80))
    sizes = rng.geometric(rng.uniform(0.15, 0.9), patients).clip(max=25)
    patient = np.repeat(np.arange(patients), sizes)
    count = len(patient)
    label = rng.integers(0, rng.integers(1, 4), patients)[patient]
    label[rng.random(count) < 0.05] = -1
    video = np.where(rng.random(count) < 0.05, rng.integers(0, 4, count), -1)
    group = link_groups([f"p{p}" for p in patient], [f"v{v}" if v >= 0 else "" for v in video])
    fold = np.full(count, -1)
    if seed % 3 == 0:
        fold = rng.integers(0, 3, patients)[patient]
        fold[rng.random(count) < 0.01] = 0
    device = np.array(["a", "b", "c", ""])[rng.choice(4, patients, p=[0.5, 0.3, 0.15, 0.05])[patient]]
    table = pd.DataFrame(
        {
            "label": label.astype(np.int16), "group": group, "fold": fold.astype(np.int16),
            "has_mask": rng.random(count) < rng.uniform(0.5, 1.0),
            "device": device, "name": [f"{seed}-{n}" for n in range(count)],
        }
    )  # fmt: skip
    return SimpleNamespace(table=table, count=count, name=f"world {seed}", digest=f"{seed}", fold=seed % 2)


@functools.cache
def sides(seed: int, fraction: float, draw: int = 0) -> Split:
    pack = world(seed)
    return split(pack, Division(pack.fold), fraction=fraction, seed=draw)


def groups(seed: int, rows: np.ndarray) -> set[int]:
    return set(world(seed).table.group.to_numpy()[rows].tolist())


@pytest.mark.parametrize("seed", WORLDS)
def test_no_group_stands_on_both_sides(seed: int) -> None:
    found = sides(seed, 50)
    assert len(found.train) and len(found.test)
    assert not groups(seed, found.train) & groups(seed, found.test)
    everybody = {*found.train, *found.test}
    mates = set(range(world(seed).count)) - everybody  # of official test images: on no side
    assert len(everybody) == len(found.train) + len(found.test)
    assert groups(seed, np.array(sorted(mates), int)) <= groups(seed, found.test) and (not mates or seed % 3 == 0)


@pytest.mark.parametrize("seed", WORLDS)
def test_fractions_are_nested(seed: int) -> None:
    few, half, whole = (set(sides(seed, f).labelled) | set(sides(seed, f).inner) for f in (20, 50, 100))
    annotated = world(seed).table.has_mask.to_numpy()
    train = sides(seed, 100).train
    assert few <= half <= whole == set(train[annotated[train]])
    assert len(few) > 0 and len(few) <= len(half)


@pytest.mark.parametrize("seed", WORLDS)
def test_a_fraction_is_as_large_as_it_says_up_to_one_group(seed: int) -> None:
    table, train = world(seed).table, sides(seed, 100).train
    annotated = train[table.has_mask.to_numpy()[train]]
    largest = table.group[annotated].value_counts().max()
    for fraction in (20, 50):
        found = sides(seed, fraction)
        excess = len(found.labelled) + len(found.inner) - len(annotated) * fraction / 100
        assert -largest / 2 - 0.5 <= excess <= largest


@functools.cache
def clips(seed: int) -> SimpleNamespace:
    """Few groups, some of which hold a large share of all images."""
    sizes = np.random.default_rng(seed).geometric(0.04, 60).clip(max=175)
    group = np.repeat(np.arange(60), sizes)
    count = len(group)
    table = pd.DataFrame({"group": group, "label": group % 3, "fold": -1, "has_mask": True, "device": ""})
    return SimpleNamespace(table=table, count=count, name="clips")


@pytest.mark.parametrize("seed", range(50))
def test_a_large_group_makes_neither_a_fraction_nor_its_inner_validation_much_larger(seed: int) -> None:
    pack, before = clips(seed), np.zeros(0, int)
    whole = len(divide(pack, Division()).train)
    for fraction in (5, 10, 20, 35, 50, 75, 100):
        labelled, inner = fraction_of(pack, Division(), fraction, seed)
        chosen = np.union1d(labelled, inner)
        assert np.isin(before, chosen).all(), "a smaller fraction is part of it"
        before = chosen
        taken, held = (pack.table.group[rows].value_counts() for rows in (chosen, inner))
        assert len(chosen) <= 1.5 * whole * fraction / 100 + 1 or taken.max() >= len(chosen) / 3
        fitting = len(taken[taken <= 0.3 * len(chosen)])
        assert len(inner) <= 0.3 * len(chosen) + 1 if fitting else len(held) <= 1


def test_inner_validation_of_large_groups_alone_is_the_smallest() -> None:
    table = pd.DataFrame({"group": np.repeat([0, 1, 2], [80, 50, 70]), "label": 0})
    assert [table.group[take_inner(table, np.arange(200), seed)].unique().tolist() for seed in range(5)] == [[1]] * 5


@pytest.mark.parametrize("seed", WORLDS)
@pytest.mark.parametrize("fraction", [20, 50, 100])
def test_inner_validation_is_carved_out_of_the_fraction_by_groups(seed: int, fraction: float) -> None:
    found = sides(seed, fraction)
    assert not set(found.labelled) & set(found.inner)
    assert not groups(seed, found.labelled) & groups(seed, found.inner)
    assert set(found.labelled) | set(found.inner) <= set(found.train)
    assert len(found.labelled) > 0
    assert len(found.inner) == 0 or len(found.inner) >= INNER_MIN


def test_inner_validation_exists_where_there_are_images_enough() -> None:
    large = [seed for seed in WORLDS if len(sides(seed, 100).labelled) + len(sides(seed, 100).inner) > 100]
    assert len(large) > 10
    assert all(len(sides(seed, 100).inner) for seed in large)


@pytest.mark.parametrize("seed", WORLDS)
def test_a_fraction_is_stratified_by_the_groups_labels(seed: int) -> None:
    """Of each class's groups, the share that a fraction takes differs from the others' by about one group."""
    table = world(seed).table
    train = sides(seed, 100).train
    part = table.iloc[train[table.has_mask.to_numpy()[train]]]
    label_of = part.groupby("group").label.agg(lambda values: values.mode().iloc[0])
    found = sides(seed, 50)
    chosen = groups(seed, np.concatenate([found.labelled, found.inner]))
    taken = label_of.index.isin(chosen)
    shares = [(taken[label_of == label].mean(), (label_of == label).sum()) for label in set(label_of)]
    for share, size in shares:
        for other, other_size in shares:
            assert abs(share - other) <= 1 / size + 1 / other_size + 1e-9


def test_a_group_goes_by_its_most_frequent_label_and_the_lowest_of_several() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"group": rng.integers(0, 40, 120) * 3, "label": rng.integers(-1, 3, 120)})
    expected = {}
    for group in sorted(set(table.group)):
        own = table.label[table.group == group].tolist()
        expected[group] = min(set(own), key=lambda label: (-own.count(label), label))
    assert group_labels(table).to_dict() == expected


@pytest.mark.parametrize("seed", [s for s in WORLDS if s % 3])
def test_a_test_fold_has_its_share_of_each_class(seed: int) -> None:
    table = world(seed).table
    label_of = table.groupby("group").label.agg(lambda values: values.mode().iloc[0])
    images = table.groupby("group").size()
    tested = label_of.index.isin(groups(seed, sides(seed, 100).test))
    for label in set(label_of):
        here = (label_of == label).to_numpy()
        share = images[here & tested].sum()
        assert abs(share - images[here].sum() / TEST_FOLDS) <= images[here].max()


@pytest.mark.parametrize("seed", [1, 2, 4])
def test_the_folds_together_test_every_image_once(seed: int) -> None:
    tested = np.concatenate([fold_split(world(seed), fold)[1] for fold in range(TEST_FOLDS)])
    assert sorted(tested) == list(range(world(seed).count))


@pytest.mark.parametrize("seed", WORLDS[::10])
def test_the_seed_moves_the_labels_and_never_the_test_images(seed: int) -> None:
    one, again, other = (
        sides(seed, 20),
        split(world(seed), Division(world(seed).fold), fraction=20, seed=0),
        sides(seed, 20, 1),
    )
    assert np.array_equal(one.labelled, again.labelled) and np.array_equal(one.inner, again.inner)
    assert np.array_equal(one.test, other.test) and np.array_equal(one.train, other.train)
    assert set(one.labelled) | set(one.inner) != set(other.labelled) | set(other.inner)


@pytest.mark.parametrize("seed", [0, 3, 6])
def test_official_folds_are_kept_and_whoever_shares_a_group_with_the_test_is_not_trained_on(seed: int) -> None:
    pack = world(seed)
    official = pack.table.fold.to_numpy() == pack.fold
    assert np.array_equal(np.flatnonzero(official), sides(seed, 100).test)
    assert not groups(seed, sides(seed, 100).train) & groups(seed, np.flatnonzero(official))


@pytest.mark.parametrize("seed", [seed for seed in WORLDS if seed not in (25, 83)])  # one group holds nearly all there
def test_a_device_left_out_is_neither_trained_on_nor_known_to_a_patient_who_is(seed: int) -> None:
    pack = world(seed)
    devices = pack.table.device.to_numpy()
    rarest = min(set(devices) - {""}, key=devices.tolist().count)
    plain, found = divide(pack, Division(pack.fold)), divide(pack, Division(pack.fold, device=rarest))
    assert set(found.unseen) == set(np.flatnonzero(devices == rarest))
    everybody = [groups(seed, rows) for rows in (found.train, found.test, found.unseen)]
    assert sum(map(len, everybody)) == len(set.union(*everybody))
    assert set(found.train) <= set(plain.train) and set(found.test) <= set(plain.test)
    assert not set(devices[found.train]) & {rarest, ""}  # an unknown device may be the one that is left out


def test_a_device_without_which_nobody_is_left_is_refused() -> None:
    with pytest.raises(UsbenchError, match="nobody left to train and test on without the device 'b'"):
        divide(world(25), Division(world(25).fold, device="b"))


@pytest.mark.parametrize("seed", WORLDS[::10])
def test_packs_that_are_trained_on_together_keep_their_own_sides_and_fractions(seed: int) -> None:
    packs = [world(seed), world(seed + 1)]
    cohort = Cohort(tuple((pack, Division()) for pack in packs))
    labelled, inner = ({pack.name: rows for pack, rows in side} for side in cohort.fraction(50, 0))
    for pack, (_, train) in zip(packs, cohort.train(), strict=True):
        assert np.array_equal(train, fold_split(pack, 0)[0])
        alone = split(pack, Division(), fraction=50, seed=0)
        rows = {*labelled[pack.name], *inner.get(pack.name, ())}
        assert rows == {*alone.labelled, *alone.inner}
    assert sum(map(len, inner.values())) >= INNER_MIN or not inner


def test_only_annotated_images_are_tested_on() -> None:
    pack = world(1)
    inside, outside = (rows_tested(pack, Division(), which) for which in (TEST, ALL))
    annotated = pack.table.has_mask.to_numpy()
    assert annotated[inside].all() and set(inside) < set(fold_split(pack, 0)[1])
    assert np.array_equal(outside, np.flatnonzero(annotated))
    unseen = rows_tested(pack, Division(device="b"), UNSEEN)
    assert np.array_equal(unseen, np.flatnonzero(annotated & (pack.table.device == "b").to_numpy()))


@pytest.mark.parametrize(("seed", "fold", "words"), [(1, 5, "folds 0 to 4"), (1, -1, "folds 0 to 4"), (0, 3, "0 to 2")])
def test_a_fold_that_does_not_exist_is_refused(seed: int, fold: int, words: str) -> None:
    with pytest.raises(UsbenchError, match=words):
        fold_split(world(seed), fold)


def test_too_few_patients_are_refused() -> None:
    table = pd.DataFrame({"label": [0] * 8, "group": [0, 1, 2, 3] * 2, "fold": [-1] * 8, "has_mask": [True] * 8})
    with pytest.raises(UsbenchError, match="4 groups"):
        fold_split(SimpleNamespace(table=table, count=8, name="few", digest=""), 0)


def test_an_image_list_has_one_digest_whatever_its_order() -> None:
    pack = world(1)
    assert list_digest(pack, np.array([3, 1, 2])) == list_digest(pack, np.array([1, 2, 3]))
    assert list_digest(pack, np.array([1, 2])) != list_digest(pack, np.array([1, 2, 3]))


def test_what_a_protocol_needs_says_which_images_count() -> None:
    table = pd.DataFrame({"has_mask": [True, True, False, False], "label": [0, -1, 1, 2]})
    pack = SimpleNamespace(table=table, classes=("benign", "malignant"))
    other = SimpleNamespace(table=pd.DataFrame({"label": [1, 0, 0]}), classes=("malignant", "cyst"))
    every = np.arange(4)
    by_mask, by_label, by_both = (Wanted.of(needs, [pack]) for needs in ((), ("label",), ("mask", "label")))
    assert by_mask == Wanted() == Wanted.of(("mask", "video"), [pack])
    assert by_mask.rows(pack, every).tolist() == [0, 1]
    assert by_label.classes == ("benign", "malignant", "2") and by_label.rows(pack, every).tolist() == [0, 2, 3]
    assert by_both.rows(pack, every).tolist() == [0]
    assert by_label.rows(other, np.arange(3)).tolist() == [1, 2]
    assert Wanted.of(("label",), [pack, other]).classes == ("benign", "malignant", "2", "cyst")


def test_who_is_divided_without_a_protocol_is_who_has_what_the_set_is_annotated_with() -> None:
    masks = pd.DataFrame({"has_mask": [True, True, False], "label": [0, 1, 0]})
    labels = pd.DataFrame({"has_mask": [False] * 3, "label": [0, -1, 1]})
    neither = pd.DataFrame({"has_mask": [False] * 3, "label": [-1] * 3})
    found = []
    for table in (masks, labels, neither):
        pack = SimpleNamespace(table=table, classes=("benign", "malignant"))
        found.append(Wanted.fitting(pack).rows(pack, np.arange(3)).tolist())  # type: ignore[arg-type]
    assert found == [[0, 1], [0, 2], []]
