"""The data sets that a network comes from, as their packs tell. Needs no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from usbench.data.pack import Pack
from usbench.data.place import stored_packs
from usbench.errors import UsbenchError
from usbench.report.summary import packs_of
from usbench.runs.store import Store
from usbench.share.choose import Trained

CHUNK = 256


@dataclass
class Source:
    """A data set that a network has learnt from or was tested on."""

    name: str
    uses: list[str] = field(default_factory=list)
    pack: Pack | None = None  # None where it is not on this machine

    def said(self, attribute: str) -> str:
        """What its pack says of itself."""
        return str(self.pack.attributes.get(attribute, "")) if self.pack is not None else ""


def sources(trained: Trained) -> list[Source]:
    """Every data set of a network: trained on, pretrained on, tested on."""
    by_digest, by_name = _packs(trained.store)
    tested: dict[str, str] = {}  # name → digest
    for result in trained.tests:
        tested.setdefault(str(result.row["test_data"]).partition("/")[0], str(result.facts.get("pack", "")))
    row, found = trained.record["row"], dict[str, Source]()
    trained_on = str(row["train_data"]).split("+")
    uses = [(name, "fine-tuning") for name in trained_on]
    uses += _pretraining(trained.pretrained, trained_on) if trained.pretrained else []
    uses += [(name, "tests") for name in tested]
    for name, use in uses:
        source = found.setdefault(name, Source(name))
        if use not in source.uses:
            source.uses.append(use)
        # A set that was tested on is known by its content; one that was only learnt from by its name.
        source.pack = by_digest.get(tested[name]) if name in tested else by_name.get(name)
    return list(found.values())


def _pretraining(pretrained: Mapping[str, Any], trained_on: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The data sets of a pretraining, and whether it knew their labels: those of what is trained on too, at most."""
    labels = pretrained["facts"].get("pretrain_labels", "none")
    for text in str(pretrained["row"].get("pretrain_data", "none")).split("+"):
        name = text.partition("/")[0]  # of which only a part may have been taken
        known = labels != "none" and name in trained_on
        if name != "none":
            yield name, f"pretraining, {f'labels: {labels}' if known else 'without labels'}"


def _packs(store: Store) -> tuple[dict[str, Pack], dict[str, Pack]]:
    """The packs of this machine by content and by name."""
    by_digest: dict[str, Pack] = {}
    by_name: dict[str, Pack] = {}
    for path in dict.fromkeys((*packs_of(store), *stored_packs())):
        with contextlib.suppress(UsbenchError):
            pack = Pack(path)
            by_digest.setdefault(pack.digest, pack)
            by_name.setdefault(pack.name, pack)
    return by_digest, by_name


def all_insonified(pack: Pack | None) -> bool:
    """Whether no image of a pack has an outside: its network saw lesions everywhere."""
    import numpy as np

    if pack is None:
        return False
    rows = np.arange(pack.count)
    return all(bool(pack.plane("sector", rows[at : at + CHUNK]).all()) for at in range(0, pack.count, CHUNK))


def unseen(own: Sequence[Source]) -> list[Source]:
    """The sets that are not here, where only they could say whether a network's images have an outside."""
    lost = [source for source in own if source.pack is None]
    known = [source.pack for source in own if source.pack is not None]
    return lost if lost and all(map(all_insonified, known)) else []


def trained_on(used: Sequence[Source], row: Mapping[str, Any]) -> list[Source]:
    """The sets that were fine-tuned on, among all that a network comes from."""
    return [source for source in used if source.name in str(row["train_data"]).split("+")]
