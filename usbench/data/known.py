"""What is known about each image of several packs behind each other: labels, tags, videos, frames and times."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from usbench.data.pack import Pack
from usbench.data.splits import class_names


@dataclass(frozen=True)
class Known:
    """One value an image. Codes are −1 where nothing is known."""

    label: np.ndarray
    tag: np.ndarray
    video: np.ndarray
    frame: np.ndarray
    time: np.ndarray


def describe(parts: Sequence[tuple[Pack, np.ndarray]], unlabelled: Collection[Pack], named: Sequence[str]) -> Known:
    """Text becomes codes. A class is the same in every pack; equal videos of two packs are not.

    A video whose frames have no numbers gets them in the order of the pack. A time that is not known is the frame's
    number over the frame rate.
    """
    classes = {name: code for code, name in enumerate(named)}
    columns: dict[str, list[np.ndarray]] = {k: [] for k in ("label", "video", "frame", "time", "fps", "tag")}
    for pack, indices in parts:
        table = pack.table.iloc[indices]
        hidden = pack in unlabelled
        codes = [classes.setdefault(name, len(classes)) for name in ([] if hidden else class_names(pack))]
        known = np.full(len(table), -1) if hidden else table.label.to_numpy(np.int64)
        columns["label"].append(np.array([*codes, -1], np.int64)[known])
        columns["frame"].append(table.frame.to_numpy(np.int64))
        columns["time"].append(table.time.to_numpy(np.float32))
        columns["fps"].append(table.fps.to_numpy(np.float32))
        columns["tag"].append(table.tag.to_numpy(str).astype(object))
        videos = table.video.to_numpy(str).astype(object)
        columns["video"].append(np.array([f"{pack.digest}/{v}" if v else "" for v in videos], dtype=object))
    whole = {name: np.concatenate(of) for name, of in columns.items()}
    video = _codes(whole["video"])
    time, fps = whole["time"], whole["fps"]
    frame = _numbered(whole["frame"], video, time)
    derived = np.isnan(time) & (frame >= 0) & (fps > 0)
    time[derived] = frame[derived] / fps[derived]
    return Known(whole["label"], _codes(whole["tag"]), video, frame, time)


def _codes(values: np.ndarray) -> np.ndarray:
    """Text → codes; the empty text is −1, unknown."""
    names, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64) - 1 if len(names) and names[0] == "" else codes.astype(np.int64)


def _numbered(frame: np.ndarray, video: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The frames' numbers; the frames of a video that has none count from 0 in order of time, else of the pack."""
    frame = frame.copy()
    order = np.argsort(video, kind="stable")
    order = order[video[order] >= 0]
    for rows in np.split(order, np.flatnonzero(np.diff(video[order])) + 1):
        if (frame[rows] < 0).all():
            timed = not np.isnan(time[rows]).any()
            frame[rows[np.argsort(time[rows], kind="stable")] if timed else rows] = np.arange(len(rows))
    return frame
