"""Frozen splits: who is trained on and who is tested on as lists of names in a JSON file, read and written.

    {"train": [names], "val": [names], "test": [names], "unlabelled": [names]}    or    [names]

`val` is the inner validation (without it, that is carved out of `train`), `unlabelled` is pretrained on and not
fine-tuned on; both may be left out. A plain list is the test set, and all other images are trained on.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from usbench.data.pack import Pack
from usbench.errors import UsbenchError, unknown
from usbench.spec import key_of
from usbench.whole import written

SIDES = ("train", "val", "test", "unlabelled")


@dataclass(frozen=True)
class Frozen:
    """A split file's content: the sides that it names."""

    path: Path
    sides: dict[str, tuple[str, ...]]

    @property
    def key(self) -> str:
        """What stands in keys and rows: the lists, not the file."""
        return f"split:{key_of({side: sorted(names) for side, names in self.sides.items()})}"

    def rows(self, pack: Pack) -> dict[str, np.ndarray]:
        """The sides as sorted rows of a pack; a name that it does not have is refused."""
        place = {name: row for row, name in enumerate(pack.table.name)}
        found = {}
        for side, names in self.sides.items():
            if missing := [name for name in names if name not in place]:
                raise unknown("image", missing[0], place, where=f"in '{side}' of {self.path} for '{pack.name}'")
            found[side] = np.sort(np.array([place[name] for name in names], np.int64))
        found.setdefault("train", np.setdiff1d(np.arange(pack.count), found["test"]))
        return found

    def crossing(self, pack: Pack) -> np.ndarray:
        """The rows that stand in one group with a row of another side (training, validation, test)."""
        rows = self.rows(pack)
        group = pack.table.group.to_numpy()
        none = rows["train"][:0]
        train, val, test = rows["train"], rows.get("val", none), rows["test"]
        pretrained = rows.get("unlabelled", none)  # without labels, so it may know who is validated on
        groups = [set(group[side].tolist()) for side in (train, val, pretrained, test)]
        shared = (groups[0] & groups[1]) | (set.union(*groups[:3]) & groups[3])
        every = np.sort(np.concatenate([train, val, pretrained, test]))
        return every[np.isin(group[every], sorted(shared))]

    def refuse_crossing(self, pack: Pack) -> None:
        """Refuse a file that puts one group on two sides."""
        if not len(crossing := self.crossing(pack)):
            return
        group, names = pack.table.group.to_numpy(), pack.table.name.to_numpy()
        side_of = {name: side for side, names in self.sides.items() for name in names}
        mates = [(n, side_of.get(n, "train")) for n in names[crossing[group[crossing] == group[crossing[0]]]]]
        first, second = mates[0], next(mate for mate in mates if mate[1] != mates[0][1])
        raise UsbenchError(
            f"{self.path} puts {len(crossing)} images of one patient, video or picture on two sides, for example "
            f"'{first[0]}' ({first[1]}) and '{second[0]}' ({second[1]}): move them to one side; --allow-leaks goes on "
            "and is recorded."
        )


def read_split(path: Path) -> Frozen:
    """Read a split file; what is none is refused in a sentence."""
    try:
        given = json.loads(path.read_text("utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise UsbenchError(f"the split file {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UsbenchError(f"the split file {path} is not JSON: {error}.") from None
    if isinstance(given, list):
        given = {"test": given}
    elif not isinstance(given, dict) or "train" not in given or "test" not in given:
        raise UsbenchError(f"the split file {path} has no lists 'train' and 'test' of names, and is no list of names.")
    if wrong := [key for key in given if key not in SIDES]:
        raise unknown("side", wrong[0], SIDES, where=f"in {path}")
    for side, names in given.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UsbenchError(f"'{side}' in {path} is not a list of names.")
    if not given["test"] or given.get("train") == []:
        raise UsbenchError(f"the split file {path} has nobody to {'train on' if given['test'] else 'test on'}.")
    times = Counter(name for names in given.values() for name in names)
    if twice := [name for name, count in times.items() if count > 1]:
        raise UsbenchError(f"'{twice[0]}' stands twice in {path}: an image has one side.")
    return Frozen(path, {side: tuple(names) for side, names in given.items()})


def write_split(path: Path, sides: dict[str, list[str]]) -> None:
    """Write a split file that gives the same split when it is read."""
    text = json.dumps(sides, indent=1, ensure_ascii=False) + "\n"
    try:
        with written(path) as temporary:
            temporary.write_text(text, "utf-8")
    except OSError as error:
        raise UsbenchError(f"{path} cannot be written ({error.strerror}): name another file.") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object, none of whose keys stands twice."""
    times = Counter(key for key, _ in pairs)
    if twice := [key for key, count in times.items() if count > 1]:
        raise ValueError(f"'{twice[0]}' stands twice")
    return dict(pairs)
