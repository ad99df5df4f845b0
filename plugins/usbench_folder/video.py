"""Frames of a video file, through PyAV (the extra `video`)."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np

from usbench.data.importing import Undecodable
from usbench.errors import UsbenchError

SUFFIXES = ("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "wmv")


def frames(data: bytes, every: int) -> Iterator[tuple[int, float, float, np.ndarray]]:
    """Yield (number, seconds, frames a second, grey image) of each `every`-th frame, one at a time."""
    try:
        import av
    except ImportError:
        raise UsbenchError(
            "video files are read by PyAV, which is not installed: pip install 'usbench[video]'."
        ) from None
    try:
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or "nan")
            for number, frame in enumerate(container.decode(stream)):
                if number % every == 0:
                    seconds = float("nan") if frame.time is None else float(frame.time)
                    yield number, seconds, rate, frame.to_ndarray(format="gray")
    except (av.error.FFmpegError, IndexError, ValueError) as error:
        raise Undecodable(f"it is no video that can be decoded ({error})") from error
