"""Several packs as one: who of each is trained on, validated on, pretrained on and tested on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from usbench.data.frozen import read_split
from usbench.data.pack import Pack
from usbench.data.splits import INNER_MIN, Division, Wanted, divide, fraction_of, list_digest, without_inner

Rows = list[tuple[Pack, np.ndarray]]  # of several packs
TEST, UNSEEN, ALL = "test", "unseen", "all"  # which rows of a pack are tested on


@dataclass(frozen=True)
class Cohort:
    """Packs that are trained on together, each with what decides its sides."""

    parts: tuple[tuple[Pack, Division], ...]

    @classmethod
    def of(cls, places: Sequence[Any], open_pack: Callable[[str], Pack]) -> Cohort:
        """From the plain form that travels to a worker."""
        return cls(tuple((open_pack(path), division_of(plain)) for path, plain in places))

    def plain(self, split_files: dict[str, str]) -> list[Any]:
        """The plain form: a path, a fold, a split file, a device, what an image must have, for each pack."""
        return [[str(pack.path), plain_division(d, split_files.get(pack.name, ""))] for pack, d in self.parts]

    @property
    def packs(self) -> list[Pack]:
        """The packs, in the order in which they were named."""
        return [pack for pack, _ in self.parts]

    @property
    def name(self) -> str:
        """How it stands in tables."""
        return "+".join(pack.name for pack in self.packs)

    def train(self) -> Rows:
        """Every training image, annotated or not."""
        return [(pack, divide(pack, division).train) for pack, division in self.parts]

    def fraction(self, fraction: float, seed: int) -> tuple[Rows, Rows]:
        """(labelled, inner): the fraction of each pack; validated where all of them together have images enough."""
        pairs = [fraction_of(pack, division, fraction, seed) for pack, division in self.parts]
        if sum(len(inner) for _, inner in pairs) < INNER_MIN:
            divisions = [division for _, division in self.parts]
            pairs = [(without_inner(d, *pair), pair[1][:0]) for d, pair in zip(divisions, pairs, strict=True)]
        return _rows(self.packs, [p[0] for p in pairs]), _rows(self.packs, [p[1] for p in pairs])

    def untrained(self, sides: Sequence[Rows]) -> Rows:
        """The images that count and stand on none of the sides: those tested on, and those left unlabelled."""
        found = []
        for pack, division in self.parts:
            used = [rows for side in sides for other, rows in side if other is pack]
            counted = division.wanted.rows(pack, np.arange(pack.count))
            found.append(counted[~np.isin(counted, np.concatenate([*used, counted[:0]]))])
        return _rows(self.packs, found)


def _rows(packs: Sequence[Pack], rows: Sequence[np.ndarray]) -> Rows:
    return [(pack, of) for pack, of in zip(packs, rows, strict=True) if len(of)]


def whole(pack: Pack, device: str) -> np.ndarray:
    """Every image of a pack that is only pretrained on, but for whom a device left out has seen, or may have."""
    left_out = (pack.table.device == device).to_numpy() & bool(device)
    if not left_out.any():
        return np.arange(pack.count)
    unknown = (pack.table.device == "").to_numpy()
    return np.flatnonzero(~np.isin(pack.table.group, pack.table.group[left_out]) & ~unknown)


def plain_division(division: Division, split_file: str = "") -> dict[str, Any]:
    """The plain form of what decides a pack's sides."""
    classes = division.wanted.classes
    return {
        "fold": division.fold, "split": split_file, "device": division.device, "mask": division.wanted.mask,
        "classes": None if classes is None else list(classes),
    }  # fmt: skip


def division_of(plain: dict[str, Any]) -> Division:
    """What decides a pack's sides, from its plain form."""
    frozen = read_split(Path(plain["split"])) if plain["split"] else None
    classes = None if plain["classes"] is None else tuple(plain["classes"])
    return Division(plain["fold"], frozen, plain["device"], Wanted(plain["mask"], classes))


def rows_tested(pack: Pack, division: Division, which: str) -> np.ndarray:
    """The annotated images that a network is tested on: of a fold, of the device left out, or all of an unseen set."""
    if which == ALL:
        return division.wanted.rows(pack, np.arange(pack.count))
    sides = divide(pack, division)
    return division.wanted.rows(pack, sides.test if which == TEST else sides.unseen)


def digest_of(rows: Rows) -> str:
    """A digest of exactly which images of which packs: it stands in the keys."""
    digests = [list_digest(pack, indices) for pack, indices in rows]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]
