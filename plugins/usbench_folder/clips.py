"""Clips of one's own: a folder of frames each, or a video file each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from usbench.data.importing import Case, Importer, Item, Release
from usbench.errors import UsbenchError
from usbench_folder.video import SUFFIXES, frames

VIDEO = rf"[^/]+\.(?i:{'|'.join(SUFFIXES)})"
FRAME = r"[^/]+\.(?i:png|jpe?g|bmp|tiff?|gif|webp)"


class Clips(Importer):
    """`<clip>/<frame>.png`, `<class>/<clip>/<frame>.png`, `<clip>.mp4` or `<class>/<clip>.mp4`.

    A frame's number is the one in which the names of its clip differ. `fps` is the rate of the video, where it is
    known: frame numbers then give times. Where names differ in more, frames stand in the order of their names and have
    no times. A video file says its own rate.

    Args:
        name: what the set is called from then on, as in `folder:kidneys`.
        licence: under which its images may be used; it goes with them into exports.
        tag: which organ is seen, for losses that ask.
        fps: frames a second, of clips that are folders of frames; 0 where nobody knows.
        every: each so many-th frame of a video file is taken.
    """

    generic = True
    exact = True
    layout = rf"(?:.+/)?(?:{VIDEO}|(?<=/){FRAME})"
    example = "clip/frame_1.png"
    version = "2"

    def __init__(self, name: str = "", licence: str = "", tag: str = "", fps: float = 0.0, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every is {every}: each so many-th frame, from 1")
        if fps < 0:
            raise ValueError(f"fps is {fps:g}: frames a second, or 0 where nobody knows.")
        super().__init__(name=name, licence=licence, tag=tag, fps=fps)
        self.name, self.anatomy, self.fps, self.every = name, tag, fps or float("nan"), every
        self.licence = licence or "not stated"
        self.source = "clips of one's own"
        self.videos: list[PurePosixPath] = []

    def cases(self, release: Release) -> Iterator[Case]:
        clips: dict[str, list[PurePosixPath]] = defaultdict(list)
        self.videos = [PurePosixPath(found[0]) for found in release.match(rf"(?:.+/)?{VIDEO}")]
        first: dict[str, PurePosixPath] = {}
        for video in self.videos:
            if (other := first.setdefault(video.with_suffix("").as_posix(), video)) != video:
                raise UsbenchError(f"two videos have one name: '{other}' and '{video}'; rename or remove one.")
        for image in map(PurePosixPath, release.images):
            if image.parent.name:
                clips[image.parent.as_posix()].append(image)
        places = [PurePosixPath(clip) for clip in clips] + self.videos
        self.classes = tuple(sorted({place.parent.name for place in places} - {""}))
        for clip, members in clips.items():
            members.sort(key=lambda image: (_parts(image), image.name))
            numbers = _numbers([_parts(image) for image in members])
            fps = self.fps if numbers else float("nan")  # of a place and a rate, a pack would make a time
            for frame, image in zip(numbers or range(len(members)), members, strict=True):
                yield Case(
                    image.with_suffix("").as_posix(), image.as_posix(), video=clip, frame=frame, fps=fps,
                    time=frame / fps, label=self.label(PurePosixPath(clip).parent.name),
                )  # fmt: skip

    def count(self, path: Path | None) -> int | None:
        """Unknown where there are videos: they are decoded only once."""
        images = super().count(path)
        return None if self.videos else images

    def items(self, path: Path | None) -> Iterator[Item]:
        """The frames in folders, then those of the videos."""
        yield from super().items(path)
        release, _ = self._open(path)
        for video in self.videos:
            yield from self.of_one_file(release, str(video), self._decoded(release, video))

    def _decoded(self, release: Release, video: PurePosixPath) -> Iterator[Item]:
        name = video.with_suffix("").as_posix()
        for number, seconds, rate, image in frames(release.read(str(video)), self.every):
            yield Item(
                f"{name}/{number}", image, video=name, frame=number, time=seconds, fps=rate, tag=self.anatomy,
                label=self.label(video.parent.name),
            )  # fmt: skip


def _parts(image: PurePosixPath) -> list[str | int]:
    """The texts and the numbers of a name in turn, which stand in the order that a person expects: 2 before 10."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", image.stem))]


def _numbers(names: Sequence[list[str | int]]) -> list[int]:
    """The number in which alone all names differ; none where there is no such number, or no pack can keep it."""
    if len({len(name) for name in names}) > 1:
        return []
    differ = [column for column in zip(*names, strict=True) if len(set(column)) > 1]
    numbers = [part for column in differ for part in column if isinstance(part, int) and part < 2**31]
    return numbers if len(differ) == 1 and len(set(numbers)) == len(names) else []
