"""POCUS, the COVID-19 lung ultrasound data set."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from usbench.data.importing import Case, Importer, Release, whole

KEPT = 3  # frames a second that the release keeps of a clip: every n-th, where n = int(frames a second / 3)
# Clips that their names keep together: a volunteer, a case of a web page, a numbered set of one day, a series of days.
PEOPLE = (
    re.compile(r"_(?P<who>pat\d+)Image"),
    re.compile(r"_(?P<who>lift?l)\w*?_?(?P<which>case\d+)", re.IGNORECASE),
    re.compile(r"_(?P<who>northumbria_\d+)_(?P<which>set\d+)"),
    re.compile(r"^(?P<who>Cov-Atlas-Day)\+\d"),
)


class POCUS(Importer):
    """A folder a class; `<clip>.<ext>_frame<N>.jpg` is frame N of a clip, any other file a clip of one frame.

    Where a table `frames.csv` (frame, split) lies beside, its five folds are taken; else folds are dealt by patient and
    clip. The release names no patients, but some clips say whose they are, so that no two of one person stand on two
    sides of a split. Nor does it say how fast a clip was; its frames' numbers do, since three a second were kept.
    """

    source = "https://github.com/jannisborn/covid19_ultrasound"
    licence = "a licence an image: CC BY 4.0, CC BY-NC 4.0, CC BY-NC-SA"
    citation = "Born et al.: Accelerating detection of lung pathologies with explainable ultrasound. Appl Sci 11, 2021"
    version = "2"
    classes = ("covid", "pneumonia", "regular")
    anatomy = "lung"
    layout = r"image_dataset/(?:covid|pneumonia|regular)/[^/]+\.(?i:jpe?g|png)"
    example = "image_dataset/covid/Cov-Atlas.gif_frame0.jpg"

    def cases(self, release: Release) -> Iterator[Case]:
        fold: dict[str, str] = {}
        if "frames.csv" in release.files:
            table = release.table("frames.csv", ("frame", "split"))
            fold = dict(zip(table.frame, table.split, strict=True))
        clip = r"(?P<clip>.+?)(?:\.\w+_frame(?P<frame>\d+))?"
        found = list(
            release.match(rf"image_dataset/(?P<label>covid|pneumonia|regular)/(?P<file>{clip}\.(?i:jpe?g|png))")
        )
        frames: dict[str, list[int]] = defaultdict(list)
        for image in found:
            frames[image["clip"]].append(int(image["frame"] or 0))
        for image in found:
            yield Case(
                image["file"], image[0], label=self.label(image["label"]), patient=person(image["clip"]),
                video=image["clip"], frame=int(image["frame"] or 0), fps=KEPT * step(frames[image["clip"]]),
                fold=whole(fold.get(image["file"], "")),
            )  # fmt: skip


def person(clip: str) -> str:
    """Whose clip it is, where its name says that others are of the same person; else nobody knows."""
    for pattern in PEOPLE:
        if found := pattern.search(clip):
            return " ".join(found.groupdict().values())
    return ""


def step(frames: Iterable[int]) -> float:
    """How many frames of the clip there were for one that was kept; NaN for a single one."""
    return float(min((later - one for one, later in itertools.pairwise(sorted(frames))), default=float("nan")))
