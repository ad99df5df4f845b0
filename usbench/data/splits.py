"""Who is trained on, who is tested on: group-aware, nested, seeded, and the same for every row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from usbench.data.frozen import Frozen
from usbench.data.groups import deal, take_fraction, take_inner
from usbench.data.pack import Pack
from usbench.errors import UsbenchError

TEST_FOLDS = 5
INNER_MIN = 10


@dataclass(frozen=True)
class Wanted:
    """What an image must have so that a protocol can train and test on it."""

    mask: bool = True  # somebody annotated it, be it with an empty mask
    classes: tuple[str, ...] | None = None  # its class is one of these; None: whatever it is

    @classmethod
    def of(cls, needs: Sequence[str], packs: Sequence[Pack]) -> Wanted:
        """Of a protocol that is trained on these packs; one that asks for neither masks nor labels is about masks."""
        by_label = "label" in needs
        return cls("mask" in needs or not by_label, classes_of(packs) if by_label else None)

    @classmethod
    def fitting(cls, pack: Pack) -> Wanted:
        """Of the protocols that a pack is annotated for: those on masks where it has some, else those on labels."""
        return cls.of(() if pack.table.has_mask.any() or not (pack.table.label >= 0).any() else ("label",), [pack])

    def rows(self, pack: Pack, rows: np.ndarray) -> np.ndarray:
        """Those of the rows that have it."""
        if self.mask:
            rows = rows[pack.table.has_mask.to_numpy()[rows]]
        if self.classes is not None:
            known = [code for code, name in enumerate(class_names(pack)) if name in self.classes]
            rows = rows[np.isin(pack.table.label.to_numpy()[rows], known)]
        return rows


@dataclass(frozen=True)
class Division:
    """What decides the sides of a pack: a test fold or a split file, and a device that is not trained on."""

    fold: int = 0
    frozen: Frozen | None = None
    device: str = ""
    wanted: Wanted = Wanted()

    @property
    def names_val(self) -> bool:
        """Whether a split file says who is validated on."""
        return self.frozen is not None and "val" in self.frozen.sides

    @property
    def label(self) -> str:
        """How it stands in tables."""
        name = self.frozen.key if self.frozen is not None else str(self.fold)
        return f"{name} without {self.device}" if self.device else name


@dataclass(frozen=True)
class Sides:
    """Rows of one pack. No group stands on two of them."""

    train: np.ndarray
    test: np.ndarray
    unseen: np.ndarray  # of the device that is left out


@dataclass(frozen=True)
class Split:
    """Rows of one pack. `train` has every training image, annotated or not; `labelled` ⊂ `train`."""

    train: np.ndarray
    test: np.ndarray
    labelled: np.ndarray  # the label fraction, without its inner validation images
    inner: np.ndarray  # carved out of the fraction; empty where that would be below 10 images


def fold_split(pack: Pack, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """(train, test): the official fold where the set has folds, else a fixed stratified group fold."""
    table = pack.table
    official = table.fold.to_numpy()
    if (official >= 0).any():
        folds = sorted(set(official[official >= 0].tolist()))
        if fold >= len(folds):
            raise UsbenchError(f"fold {fold} does not exist in '{pack.name}': it has the folds 0 to {len(folds) - 1}.")
        test = official == folds[fold]
        mates = table.group.isin(table.group[test]).to_numpy()  # a duplicate of a test image is no training image
        return np.flatnonzero(~mates), np.flatnonzero(test)
    groups = table.group.nunique()
    if groups < TEST_FOLDS:
        raise UsbenchError(f"'{pack.name}' has {groups} groups of patients: at least {TEST_FOLDS} are needed to split.")
    if not 0 <= fold < TEST_FOLDS:
        raise UsbenchError(f"fold {fold} does not exist in '{pack.name}': it has the folds 0 to {TEST_FOLDS - 1}.")
    sides = deal(table, np.arange(pack.count), TEST_FOLDS, "test")
    return np.flatnonzero(sides != fold), np.flatnonzero(sides == fold)


def divide(pack: Pack, division: Division) -> Sides:
    """The sides of a pack: those of its split file or of the fold, and apart from them a device that is left out."""
    if division.frozen is not None:
        rows = division.frozen.rows(pack)
        test = rows.pop("test")
        train = np.sort(np.concatenate(list(rows.values())))
    else:
        train, test = fold_split(pack, division.fold)
    devices = pack.table.device.to_numpy()
    if not division.device or division.device not in devices:
        return Sides(train, test, test[:0])
    left_out = devices == division.device
    # A patient whom that device has seen, or may have seen, stands on no other side.
    known = ~np.isin(pack.table.group, pack.table.group[left_out]) & (devices != "")
    train, test = train[known[train]], test[known[test]]
    if not len(train) or not len(test):
        raise UsbenchError(
            f"'{pack.name}' has nobody left to train and test on without the device '{division.device}'."
        )
    return Sides(train, test, np.flatnonzero(left_out))


def fraction_of(pack: Pack, division: Division, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labelled, inner): `fraction` (in per cent) of the annotated training images, and what of it is validated on."""
    train = division.wanted.rows(pack, divide(pack, division).train)
    frozen = {} if division.frozen is None else division.frozen.rows(pack)
    chosen = take_fraction(pack.table, np.intersect1d(train, frozen.get("train", train)), fraction, seed)
    if "val" in frozen:
        return chosen, take_fraction(pack.table, np.intersect1d(train, frozen["val"]), fraction, seed)
    inner = take_inner(pack.table, chosen, seed)
    if len(inner) == len(chosen):
        inner = inner[:0]
    return np.setdiff1d(chosen, inner), inner


def without_inner(division: Division, labelled: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """What is trained on where there are too few images to validate on; who a file validates on is never trained on."""
    return labelled if division.names_val else np.union1d(labelled, inner)


def split(pack: Pack, division: Division, *, fraction: float, seed: int) -> Split:
    """The split of one pack, with `fraction` (in per cent) of the annotated training images."""
    sides = divide(pack, division)
    labelled, inner = fraction_of(pack, division, fraction, seed)
    if len(inner) < INNER_MIN:
        labelled, inner = without_inner(division, labelled, inner), inner[:0]
    return Split(sides.train, sides.test, labelled, inner)


def as_lists(pack: Pack, sides: Split) -> dict[str, list[str]]:
    """A split as the names of a split file."""
    rest = np.setdiff1d(sides.train, np.concatenate([sides.labelled, sides.inner]))
    of = {"train": sides.labelled, "val": sides.inner, "test": sides.test, "unlabelled": rest}
    return {side: [str(name) for name in pack.table.name.to_numpy()[rows]] for side, rows in of.items()}


def class_names(pack: Pack) -> list[str]:
    """The classes by name; those without one by number."""
    return [*pack.classes, *map(str, range(len(pack.classes), int(pack.table.label.max()) + 1))]


def classes_of(packs: Sequence[Pack]) -> tuple[str, ...]:
    """The classes that any image of the packs has, each once: a class is the same in every pack."""
    present = [{int(code) for code in pack.table.label if code >= 0} for pack in packs]
    return tuple(
        dict.fromkeys(class_names(p)[code] for p, codes in zip(packs, present, strict=True) for code in sorted(codes))
    )


def list_digest(pack: Pack, indices: np.ndarray) -> str:
    """A digest of exactly which images of which pack: it stands in the keys."""
    names = pack.table.name.to_numpy()[np.sort(indices)]
    return hashlib.sha256("\0".join([pack.digest, *names]).encode()).hexdigest()[:16]
