"""Predictions for images of a user's own: masks, overlays and a table, in memory that does not grow with the images."""

from __future__ import annotations

import contextlib
import csv
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as PILImage
from scipy import ndimage

from usbench.data.importing import in_order
from usbench.data.release import Undecodable
from usbench.errors import UsbenchError, text_of, texts_of
from usbench.hooks import registry
from usbench.machine import resolve_device
from usbench.share.choose import choose
from usbench.share.config import CONFIG
from usbench.share.images import Found, find_images, read_scan, result_names
from usbench.share.network import Loaded, build, fill, read
from usbench.share.segmenter import Prediction, Prepared, Segmenter
from usbench.train import checkpoint
from usbench.train.loop import Compute

PathLike = str | os.PathLike[str]
BATCH = 16
MOST_PIXELS = 32_000_000  # of a batch, at native size: what is gigantic goes through alone
COLUMNS = ("name", "image", "width", "height", "area", "share", "probability", "notes")
TABLE = "predictions.csv"
COLOUR = (255, 79, 163)  # of the outline
WIDTH = 1 / 300  # of the outline, next to the longer side


@dataclass
class Predicted:
    """What was made."""

    folder: Path
    said: str = ""  # which of several networks it is; empty where there was no choice
    done: int = 0
    skipped: dict[str, str] = field(default_factory=dict)  # file → why

    @property
    def table(self) -> Path:
        """One row an image."""
        return self.folder / TABLE


class Task(NamedTuple):
    """A file and what its results are called."""

    found: Found
    name: str


class Scan(NamedTuple):
    """A file that was read."""

    task: Task
    prepared: Prepared
    notes: list[str]


def predict(
    run: PathLike, images: PathLike | Sequence[PathLike], out: PathLike, *,
    stores: PathLike | Sequence[PathLike] = (), seed: int | None = None, labels: float | None = None,
    threshold: float | None = None, device: str = "auto", batch: int = BATCH, overlays: bool = True,
    force: bool = False, progress: Callable[[int, int], None] | None = None,
) -> Predicted:  # fmt: skip
    """Masks, overlays and a table for images (files, folders, patterns), by a run's network or an export.

    What cannot be read is left out and named; it is an error only where nothing else is left.
    """
    folder = Path(text_of(out, "-o"))
    _check_free(folder, force)
    if not isinstance(batch, int) or batch < 1:
        raise UsbenchError(f"--batch {batch}: at least one image is needed.")
    if device not in ("auto", "cpu", "cuda"):
        raise UsbenchError(f"--device {device}: it is auto, cpu or cuda.")
    found = find_images(texts_of(images, "images:"), folder)
    loaded, said = load(run, stores, seed=seed, labels=labels)
    compute = Compute(torch.device(resolve_device(device)), loaded.config.precision)
    segmenter = Segmenter(loaded, compute, threshold)
    made = Predicted(folder, said)
    tasks = [Task(each, name) for each, name in zip(found, result_names(found), strict=True)]
    writer = _Writer(folder, overlays)
    temporary = folder / f".{TABLE}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            for row in in_order(writer, _predictions(segmenter, _scans(segmenter, tasks, made), batch)):
                table.writerow(row)
                made.done += 1
                if progress is not None:
                    progress(made.done + len(made.skipped), len(tasks))
        if made.done:
            temporary.replace(made.table)
    except OSError as error:
        raise UsbenchError(
            f"-o {folder} cannot be written to the end ({error.strerror or error}): make room and add --force, or name "
            "another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        if not made.done:
            with contextlib.suppress(OSError):  # it holds something else
                folder.rmdir()
    if not made.done:
        first = next(iter(made.skipped.items()))
        raise UsbenchError(f"none of {len(tasks)} images can be used, for example {first[0]}: {first[1]}.")
    return made


def load(
    run: PathLike, stores: PathLike | Sequence[PathLike] = (), *, seed: int | None = None, labels: float | None = None
) -> tuple[Loaded, str]:
    """The network of an export (a folder or its weights), or of a run in a store; and which of several it is."""
    text = text_of(run, "predict:")
    place = Path(text)
    if (place / CONFIG).is_file() or (place.is_file() and place.suffix == ".safetensors"):
        return read(place), ""
    from usbench.share.export import config_of
    from usbench.share.provenance import sources

    trained = choose(text, [Path(store) for store in texts_of(stores, "stores=")], seed=seed, labels=labels)
    name = trained.record["identity"]["protocol"]["name"]
    if not registry().get("protocol", name).build().masks:
        raise UsbenchError(f"protocol '{name}' makes no masks: name a segmentation run.")
    config = config_of(trained, sources(trained))
    _, model, protocol = build(config, trained.store.root)
    fill(model, checkpoint.read(trained.weights)[0], trained.weights)
    return Loaded(config, model, protocol), trained.said


def _scans(segmenter: Segmenter, tasks: Iterable[Task], made: Predicted) -> Iterator[Scan]:
    """The images that can be read, in order, decoded and prepared on all cores."""

    def read_one(task: Task) -> Scan | tuple[Task, str]:
        try:
            grey, notes = read_scan(task.found.path)
        except Undecodable as error:
            return task, str(error)
        return Scan(task, segmenter.prepare(grey), notes)

    for scan in in_order(read_one, tasks):
        if isinstance(scan, Scan):
            yield scan
        else:
            made.skipped[str(scan[0].found.path)] = scan[1]


def _predictions(
    segmenter: Segmenter, scans: Iterable[Scan], batch: int
) -> Iterator[tuple[Scan, Prediction]]:  # fmt: skip
    waiting: list[Scan] = []
    for scan in scans:
        waiting.append(scan)
        if len(waiting) == batch or sum(s.prepared.grey.size for s in waiting) > MOST_PIXELS:
            yield from zip(waiting, segmenter([s.prepared for s in waiting]), strict=True)
            waiting = []
    if waiting:
        yield from zip(waiting, segmenter([s.prepared for s in waiting]), strict=True)


class _Writer:
    """Writes what was predicted for an image, inside its folder and nowhere else; returns its row of the table."""

    def __init__(self, folder: Path, overlays: bool) -> None:
        self.folder, self.overlays = folder, overlays
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsbenchError(f"-o {folder} cannot be written ({error.strerror}): name another folder.") from None
        self.root = folder.resolve()

    def __call__(self, job: tuple[Scan, Prediction]) -> dict[str, Any]:
        scan, prediction = job
        mask, grey = prediction.mask, scan.prepared.grey
        self._save("masks", scan.task.name, mask.astype(np.uint8) * 255)
        if self.overlays:
            self._save("overlays", scan.task.name, outlined(grey, mask))
        probability = prediction.probability
        return {
            "name": scan.task.name, "image": scan.task.found.name, "width": grey.shape[1], "height": grey.shape[0],
            "area": int(mask.sum()), "share": f"{mask.mean():.6g}",
            "probability": f"{probability:.4f}" if probability == probability else "", "notes": "; ".join(scan.notes),
        }  # fmt: skip

    def _save(self, kind: str, name: str, pixels: np.ndarray) -> None:
        path = self.folder / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.root not in path.parent.resolve().parents:
            raise UsbenchError(f"{path.parent} leads out of {self.folder}: remove that link, or name another folder.")
        temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            PILImage.fromarray(pixels).save(temporary, format="PNG", compress_level=1 if pixels.ndim == 3 else 6)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def outlined(grey: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) the image with the mask's outline, which lies inside the mask."""
    picture = np.repeat(grey[..., None], 3, axis=2)
    if mask.any():
        thick = max(1, round(max(grey.shape) * WIDTH))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside = ndimage.binary_erosion(mask[box], iterations=thick)
        picture[box][mask[box] & ~inside] = COLOUR
    return picture


def _check_free(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsbenchError(f"-o {folder} is a file: name a folder.")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise UsbenchError(f"-o {folder} is not empty: name another folder, or --force writes into it.")
