"""The packs of a run: who is trained on, pretrained on and tested on, and what of it leaks. Needs no torch."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from usbench.data.checked import check_once
from usbench.data.cohort import ALL, TEST, UNSEEN, Cohort, Rows, digest_of, plain_division, rows_tested, whole
from usbench.data.frozen import read_split
from usbench.data.home import Progress, find_pack, options_of, stored_pack
from usbench.data.leaks import find_leak
from usbench.data.pack import Pack
from usbench.data.splits import Division, Wanted, class_names, divide, fraction_of
from usbench.errors import UsbenchError, listed, unknown
from usbench.hooks import Registry
from usbench.runs.named import refuse_sides, refuse_twice, split_files
from usbench.spec import Choice, RunSpec

IN, OUT, TRANSDUCTIVE = "in", "out", "out-transductive"


@dataclass(frozen=True)
class Tested:
    """A test set: which rows of which pack, what it is called, and whether training knows its distribution."""

    pack: Pack
    division: Division
    which: str
    name: str
    shift: str
    corruption: dict[str, Any] | None = None  # how its images are corrupted, as it stands in keys

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """Its annotated images."""
        return rows_tested(self.pack, self.division, self.which)


class Sources:
    """Resolves the data of a spec; refuses what cannot be tested on, or leaks."""

    def __init__(self, registry: Registry, spec: RunSpec, progress: Progress) -> None:
        self.spec, self.progress = spec, progress
        for text in (*spec.data, *spec.ood, *spec.pretrain_data):
            if not text.endswith(".h5") and stored_pack(text) is None:
                options_of(registry.get("dataset", Choice.parse(text).name), Choice.parse(text))
        data, ood, more = (
            [find_pack(registry, text, progress) for text in texts]
            for texts in (spec.data, spec.ood, spec.pretrain_data)
        )
        refuse_twice(data, ood, more)
        refuse_sides(data, spec.size)
        for pack in (*data, *ood, *more):
            check_once(pack)
        self.split_files = split_files(spec, data)
        self.wanted = Wanted.of(registry.get("protocol", Choice.parse(spec.protocol).name).needs, data)
        self.cohort = Cohort(tuple((pack, self._division(pack)) for pack in data))
        own = {pack.digest for pack in data}
        self.others = [pack for pack in more if pack.digest not in own]  # pretrained on and not trained on
        self._named = [pack.digest for pack in more or data]
        self._chosen = set(self._named)
        self._parts = spec.pretrain_part == "train"
        part = "/train" if self._parts else ""
        self.pretrained = [pack.name + (part if pack.digest not in own else "") for pack in more or data]
        self._seen = {pack.digest for pack in self.others}
        unseen = Division(wanted=self.wanted)
        self.tests = [*self._inside(), *(Tested(pack, unseen, ALL, pack.name, OUT) for pack in ood)]
        self.corrupted = self._corrupted()

    def _division(self, pack: Pack) -> Division:
        file = self.split_files.get(pack.name)
        frozen = read_split(Path(file)) if file else None
        return Division(self.spec.fold, frozen, self.spec.leave_device, self.wanted)

    def _inside(self) -> list[Tested]:
        """The test parts of the packs that are trained on, and the device that is left out of them."""
        tests = [Tested(pack, division, TEST, pack.name, IN) for pack, division in self.cohort.parts]
        if device := self.spec.leave_device:
            holding = [(pack, d) for pack, d in self.cohort.parts if device in set(pack.table.device)]
            if not holding:
                known = {str(name) for pack in self.cohort.packs for name in pack.table.device if name}
                if not known:
                    raise UsbenchError(f"--leave-device {device}: '{self.cohort.name}' does not say which device.")
                raise unknown("device", device, known, where=f"in '{self.cohort.name}'")
            tests += [Tested(pack, d, UNSEEN, f"{pack.name}/{device}", OUT) for pack, d in holding]
        return tests

    def check_tests(self) -> None:
        """Refuse a test set without an image that could be scored."""
        for test in self.tests:
            if not len(test.rows):
                mend = " leave it out of --ood" if test.which == ALL else " name another fold or another set"
                raise UsbenchError(f"'{test.name}' has no {self._lacking} to test on:{mend}.")

    @property
    def _lacking(self) -> str:
        """What an image would have to be."""
        if self.wanted.classes is None:
            return "annotated image"
        return f"image {'with a mask ' if self.wanted.mask else ''}of the classes {listed(self.wanted.classes)}"

    @functools.cached_property
    def train(self) -> Rows:
        """Every training image of the packs that are trained on."""
        return self.cohort.train()

    @functools.cached_property
    def pool(self) -> str:
        """Who label fractions are taken of, and who a split file validates on: what compared rows share."""
        taken, fixed = [], []
        for pack, division in self.cohort.parts:
            labelled, inner = fraction_of(pack, division, 100, 0)
            taken.append((pack, np.union1d(labelled, inner)))
            fixed += [(pack, inner)] if division.names_val else []
        return f"{digest_of(taken)}-{digest_of(fixed)}"

    @functools.cached_property
    def pretrain(self) -> Rows:
        """What is pretrained on: the training images, unless other packs were named; whole, or their training parts."""
        own = [(pack, rows) for pack, rows in self.train if pack.digest in self._chosen]
        found = [*own, *((pack, self._rows_of_other(pack)) for pack in self.others)]
        return sorted(found, key=lambda part: self._named.index(part[0].digest)) if self._parts else found

    def _rows_of_other(self, pack: Pack) -> np.ndarray:
        return divide(pack, self._division(pack)).train if self._parts else whole(pack, self.spec.leave_device)

    @property
    def hidden(self) -> list[str]:
        """Digests of what is pretrained on without its labels though its part lies beside parts that keep theirs."""
        return sorted(self._seen) if self._parts else []

    @functools.cache  # noqa: B019 - lives as long as the planning
    def fraction(self, fraction: float, seed: int) -> tuple[Rows, Rows]:
        """(labelled, inner) of a label fraction."""
        labelled, inner = self.cohort.fraction(fraction, seed)
        if not labelled:
            what = "annotated" if self.wanted.classes is None else "labelled"
            raise UsbenchError(f"'{self.cohort.name}' has no {what} training image in fold {self.label}.")
        self._refuse_one_class(labelled, fraction, seed)
        return labelled, inner

    def _refuse_one_class(self, labelled: Rows, fraction: float, seed: int) -> None:
        """Nothing can be told apart where all labels are the same."""
        if self.wanted.classes is None:
            return
        found = {class_names(pack)[code] for pack, rows in labelled for code in pack.table.label.to_numpy()[rows]}
        if len(found) < 2:
            raise UsbenchError(
                f"{fraction:g} % of the labels of '{self.cohort.name}' (seed {seed}) are all '{min(found)}': "
                "a larger fraction, or another set, must have two classes at least."
            )

    @property
    def label(self) -> str:
        """What decided the sides, as it stands in tables."""
        return " ".join(dict.fromkeys(division.label for _, division in self.cohort.parts))

    def shift(self, test: Tested, *, pretrained: bool) -> str:
        """How far a test set is from training: a target whose images were pretrained on is no unseen one."""
        return TRANSDUCTIVE if pretrained and test.pack.digest in self._seen else test.shift

    def pretraining_offers(self) -> set[str]:
        """What a loss or an augmentation can ask of the images; labels of packs that are not trained on are ignored."""
        own = [pack.capabilities() for pack, _ in self.train if pack.digest in self._chosen]
        return set().union(*own, *(pack.capabilities() - {"label"} for pack in self.others))

    def places(self) -> dict[str, Any]:
        """Where a worker finds the same images to train on."""
        plain = self.cohort.plain(self.split_files)
        own = [place for place, pack in zip(plain, self.cohort.packs, strict=True) if pack.digest in self._chosen]
        others = [[str(pack.path), self.spec.leave_device] for pack in self.others]
        if self._parts:
            parts = Cohort(tuple((pack, self._division(pack)) for pack, _ in self.pretrain))
            return {"data": plain, "pretrain": parts.plain(self.split_files), "pretrain_whole": []}
        return {"data": plain, "pretrain": own, "pretrain_whole": others}

    def test_places(self, test: Tested) -> dict[str, Any]:
        """Where a worker finds the same images to test on."""
        file = self.split_files.get(test.pack.name, "") if test.which != ALL else ""
        return {"test": str(test.pack.path), "division": plain_division(test.division, file), "which": test.which}

    def _corrupted(self) -> list[Tested]:
        """The test parts of the trained packs again, once for each corruption and severity that is asked for."""
        if not self.spec.shifts:
            return []
        from usbench.evaluate import shifts

        made = [shifts.identity(what, k) for what in shifts.named(self.spec.shifts) for k in self.spec.severities]
        return [
            dataclasses.replace(test, shift=f"{each['corruption']}:{each['severity']}", corruption=each)
            for test in self.tests if test.shift == IN for each in made
        ]  # fmt: skip

    def leaks(self) -> dict[tuple[str, bool], int]:
        """(test set, whether pretrained) → how many images of training stand in it too; refused unless allowed."""
        found: dict[tuple[str, bool], int] = {}
        for test in {
            test.name: test for test in self.tests
        }.values():  # a corrupted set has the images of the clean one
            trained = sum(self._leak(pack, rows, test) for pack, rows in self.train)
            others = [(p, self._rows_of_other(p)) for p in self.others if p.digest != test.pack.digest]
            found[test.name, False] = trained
            found[test.name, True] = trained + sum(self._leak(pack, rows, test) for pack, rows in others)
        return found

    def _leak(self, pack: Pack, rows: np.ndarray, test: Tested) -> int:
        if pack is test.pack:
            frozen = test.division.frozen
            if frozen is None:
                return 0  # its splits keep groups together
            if not self.spec.allow_leaks:
                frozen.refuse_crossing(pack)
            group = pack.table.group.to_numpy()
            return int(np.isin(group[rows], group[test.rows]).sum())
        leak = find_leak(pack, rows, test.pack, test.rows, self.progress)
        if leak is not None and not self.spec.allow_leaks:
            raise leak.refusal()
        return 0 if leak is None else len(leak.rows)
