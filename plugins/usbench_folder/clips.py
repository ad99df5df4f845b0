"""Clips of one's own: a folder of frames each, or a video file each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from usbench.data.importing import Case, Importer, Item, Release, Undecodable
from usbench.errors import UsbenchError
from usbench_folder.video import SUFFIXES, frames

VIDEO = rf"[^/]+\.(?i:{'|'.join(SUFFIXES)})"
FRAME = r"[^/]+\.(?i:png|jpe?g|bmp|tiff?|gif|webp)"


class Clips(Importer):
    """`<clip>/<frame>.png`, `<class>/<clip>/<frame>.png`, `<clip>.mp4` or `<class>/<clip>.mp4`.

    A frame's number is the last one in its name. `fps` is the rate of the video, where it is known: frame numbers then
    give times. A video file says its own rate; `every` takes only each so many-th frame of it.
    """

    generic = True
    exact = True
    layout = rf"(?:.+/)?(?:{VIDEO}|(?<=/){FRAME})"
    example = "clip/frame_1.png"

    def __init__(self, name: str = "", licence: str = "", tag: str = "", fps: float = 0.0, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every is {every}: each so many-th frame, from 1")
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
            numbers = [int(found[-1]) if (found := re.findall(r"\d+", f.stem)) else -1 for f in members]
            if len(set(numbers)) != len(members) or min(numbers) < 0:
                numbers = list(range(len(members)))
            elif max(numbers) >= 2**31:  # a date and a time, say: no pack keeps such a number
                places = {number: place for place, number in enumerate(sorted(numbers))}
                numbers = [places[number] for number in numbers]
            for frame, image in sorted(zip(numbers, members, strict=True)):
                yield Case(
                    image.with_suffix("").as_posix(), image.as_posix(), video=clip, frame=frame, fps=self.fps,
                    time=frame / self.fps, label=self.label(PurePosixPath(clip).parent.name),
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
            try:
                yield from self._decoded(release, video)
            except Undecodable as error:
                if not self.skip_broken:
                    raise UsbenchError(
                        f"'{video}' cannot be used: {error} (in {release.path}): mend it, or leave such files out with "
                        "--skip-broken."
                    ) from error
                self.skip(str(video), str(error))

    def _decoded(self, release: Release, video: PurePosixPath) -> Iterator[Item]:
        name = video.with_suffix("").as_posix()
        for number, seconds, rate, image in frames(release.read(str(video)), self.every):
            yield Item(
                f"{name}/{number}", image, video=name, frame=number, time=seconds, fps=rate, tag=self.anatomy,
                label=self.label(video.parent.name),
            )  # fmt: skip
