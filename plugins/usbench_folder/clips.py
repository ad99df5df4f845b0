"""Clips of one's own: a folder of frames each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from usbench.data.importing import Case, Importer, Release


class Clips(Importer):
    """`<clip>/<frame>.png`, or `<class>/<clip>/<frame>.png`: a frame's number is the last one in its name.

    `fps` is the rate of the video, where it is known: frame numbers then give times.
    """

    generic = True
    exact = True
    layout = r".+/[^/]+\.(?i:png|jpe?g|bmp|tiff?|gif|webp)"
    example = "clip/frame_1.png"

    def __init__(self, name: str = "", licence: str = "", tag: str = "", fps: float = 0.0) -> None:
        super().__init__(name=name, licence=licence, tag=tag, fps=fps)
        self.name, self.anatomy, self.fps = name, tag, fps or float("nan")
        self.licence = licence or "not stated"
        self.source = "clips of one's own"

    def cases(self, release: Release) -> Iterator[Case]:
        clips: dict[str, list[PurePosixPath]] = defaultdict(list)
        for image in map(PurePosixPath, release.images):
            clips[image.parent.as_posix()].append(image)
        deep = [clip.split("/") for clip in clips]
        self.classes = tuple(sorted({parts[-2] for parts in deep if len(parts) > 1}))
        for clip, frames in clips.items():
            parts = clip.split("/")
            numbers = [int(found[-1]) if (found := re.findall(r"\d+", f.stem)) else -1 for f in frames]
            if len(set(numbers)) != len(frames) or min(numbers) < 0:
                numbers = list(range(len(frames)))
            for frame, image in sorted(zip(numbers, frames, strict=True)):
                yield Case(
                    image.with_suffix("").as_posix(), image.as_posix(), video=clip, frame=frame, fps=self.fps,
                    time=frame / self.fps, label=self.label(parts[-2]) if len(parts) > 1 else -1,
                )  # fmt: skip
