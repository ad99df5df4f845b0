"""The leak guard: near-duplicates inside packs and across them, and who may not be trained on because of them.

What was found stays in the data home under the packs' digests, so a comparison is made once. Generated packs are
exempt: their patients are known exactly.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from usbench.data.home import Progress
from usbench.data.likeness import REVISION, SIDE, near_duplicates, thumbnails
from usbench.data.pack import Pack
from usbench.data.place import data_home
from usbench.errors import UsbenchError

Member = tuple[Pack, int]  # an image by its pack and row


@dataclass(frozen=True)
class Leak:
    """Training images that are near-duplicates of a test set, or stand in a group with one that is."""

    train: Pack
    test: Pack
    rows: np.ndarray  # of the training pack
    example: tuple[str, str]

    def refusal(self) -> UsbenchError:
        """The sentence that says what leaks, and the mend."""
        many = f"{len(self.rows)} training images are" if len(self.rows) > 1 else "1 training image is"
        return UsbenchError(
            f"{many} a near-duplicate of the test set '{self.test.name}' or of the same patient as one, for example "
            f"{self.example[0]} of {self.example[1]}: leave '{self.train.name}' or '{self.test.name}' out, or see "
            f"'usbench data leaks {self.train.path} {self.test.path}'; --allow-leaks goes on and is recorded."
        )


def _cached(name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of that name in the data home, memory-mapped; made and kept if it is not there."""
    path = data_home() / "likeness" / f"{name}-r{REVISION}.npy"
    with suppress(OSError, ValueError, EOFError):
        return np.load(path, mmap_mode="r", allow_pickle=False)
    made = make()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.npy")
    with suppress(OSError):  # where nothing can be kept it is made again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            np.save(temporary, made)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return made


def _thumbs(pack: Pack) -> np.ndarray:
    def make() -> np.ndarray:
        with h5py.File(pack.path, "r", locking=False) as file:
            return thumbnails(file["images"], file["sector"], np.empty((pack.count, SIDE, SIDE), np.uint8))

    return _cached(pack.digest, make)


def alike_within(pack: Pack) -> np.ndarray:
    """(n, 2) the near-duplicates of a pack, but for frames of one video."""
    if pack.generated:
        return np.empty((0, 2), np.int64)
    return _cached(f"{pack.digest}-within", lambda: near_duplicates(_thumbs(pack), videos=pack.table.video.tolist()))


def alike_across(first: Pack, second: Pack, progress: Progress = lambda *_: None) -> np.ndarray:
    """(n, 2) the near-duplicates between two packs: a row of the first, a row of the second."""
    if first.generated or second.generated:
        return np.empty((0, 2), np.int64)
    if first.digest == second.digest:  # a copy
        inside = alike_within(first)
        return np.concatenate([np.arange(first.count)[:, None].repeat(2, axis=1), inside, inside[:, ::-1]])
    one, two = sorted((first, second), key=lambda pack: pack.digest)
    what, count = f"the comparison of {first.name} with {second.name}", first.count + second.count

    def compare() -> np.ndarray:
        progress(what, 0, count)
        found = near_duplicates(_thumbs(one), _thumbs(two))
        progress(what, count, count)
        return found

    pairs = _cached(f"{one.digest}-{two.digest}", compare)
    return pairs if one is first else pairs[:, ::-1]


def find_leak(
    train: Pack, train_rows: np.ndarray, test: Pack, test_rows: np.ndarray, progress: Progress
) -> Leak | None:
    """What of one pack's rows stands, by a chain of group and likeness, among another's; nothing where all is well."""
    pairs = np.concatenate([alike_across(train, test, progress), _same_patients(train, test)])
    of, to = train.table.group.to_numpy(), test.table.group.to_numpy()
    pairs = pairs[np.isin(of[pairs[:, 0]], of[train_rows]) & np.isin(to[pairs[:, 1]], to[test_rows])]
    if not len(pairs):
        return None
    direct = np.isin(pairs[:, 0], train_rows) & np.isin(pairs[:, 1], test_rows)
    row, column = pairs[np.argmax(direct)]
    example = (f"'{train.name}/{train.table.name[row]}'", f"'{test.name}/{test.table.name[column]}'")
    return Leak(train, test, train_rows[np.isin(of[train_rows], of[pairs[:, 0]])], example)


def _same_patients(first: Pack, second: Pack) -> np.ndarray:
    """(n, 2) an image each of the patients whom both packs have; names mean the same in packs of the same people."""
    if not first.people or first.people != second.people:
        return np.empty((0, 2), np.int64)
    rows = [{str(name): row for row, name in enumerate(pack.table.patient) if name} for pack in (first, second)]
    return np.array([(row, rows[1][name]) for name, row in rows[0].items() if name in rows[1]], np.int64).reshape(-1, 2)


def clusters(packs: Sequence[Pack]) -> list[list[Member]]:
    """Near-duplicates of all the packs, put together where one leads to the next; large clusters first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    starts = np.cumsum([0, *(pack.count for pack in packs)])
    edges = [np.empty((0, 2), np.int64)]
    for place, pack in enumerate(packs):
        edges.append(alike_within(pack) + starts[place])
        for later in range(place + 1, len(packs)):
            edges.append(alike_across(pack, packs[later]) + starts[[place, later]])
    rows, columns = np.concatenate(edges).T
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(starts[-1], starts[-1]))
    of = connected_components(graph, directed=False)[1]
    found: dict[int, list[Member]] = {}
    for index in np.flatnonzero(np.bincount(of)[of] > 1):
        place = int(np.searchsorted(starts, index, "right")) - 1
        found.setdefault(int(of[index]), []).append((packs[place], int(index - starts[place])))
    return sorted(found.values(), key=lambda members: -len(members))


def label_of(member: Member) -> str:
    """What an image is said to show, as text; empty where that is not known."""
    pack, row = member
    label = int(pack.table.label.iloc[row])
    return "" if label < 0 else pack.classes[label] if label < len(pack.classes) else str(label)


def conflicts(found: Sequence[Sequence[Member]]) -> Iterator[int]:
    """The places of the clusters whose images are said to show different things."""
    for place, members in enumerate(found):
        if len({label_of(member) for member in members} - {""}) > 1:
            yield place


def names_of(packs: Sequence[Pack]) -> dict[Path, str]:
    """What stands before the slash in an image's name: the set's name, or its file's where several share that."""
    names = [pack.name for pack in packs]
    return {pack.path: pack.name if names.count(pack.name) == 1 else pack.path.stem for pack in packs}
