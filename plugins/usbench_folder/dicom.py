"""Ultrasound as scanners and archives give it: DICOM stills and clips, through pydicom (the extra `dicom`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from usbench.data.importing import Case, Item, Release, in_order, with_sector
from usbench.errors import UsbenchError
from usbench_folder.dicom_file import NoPicture, grey, is_coloured, read_film
from usbench_folder.images import Folder, facts_of, masks_of

SUFFIX = r"(?i:dcm|dicom|ima)"


class Dicom(Folder):
    """Any tree of DICOM files: `*.dcm`, or without a suffix. Masks are `masks/x.png`, of frame 12 `masks/x/12.png`.

    From the header come patient, device, size of a pixel, and the times of frames. Where it names regions, each that is
    B-mode is cut out, so that burnt-in names and scales stay behind; where it names none, the whole picture is taken.
    Masks are drawn on the whole picture and cut with it. Colour Doppler, M-mode, spectra and volumes are left out. A
    CSV may say more, as with `folder`: its column `name` names the file. Patients are counted (`p1`, `p2`, …), but
    images are called by the paths of their files: rename folders that tell who a patient is.

    Args:
        name: what the set is called from then on, as in `dicom:kidneys`.
        licence: under which its images may be used; it goes with them into exports.
        tag: which organ is seen, for losses that ask; else what the header says.
        every: each so many-th frame of a clip is taken.
    """

    generic = True
    exact = True
    layout = rf"(?!(?:.*/)?DICOMDIR$)(?:.+/)?(?:[^/]+\.{SUFFIX}|[^/.]+|[\d.]+)"
    example = "study/IM0001.dcm"
    suffix = SUFFIX

    def __init__(self, name: str = "", licence: str = "", tag: str = "", every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every is {every}: each so many-th frame, from 1")
        super().__init__(name=name, licence=licence, tag=tag)
        self.every = every
        self.source = "DICOM files of one's own"

    def recognises(self, path: Path) -> bool:
        """Never: any file may be DICOM, so that the importer has to be named."""
        return False

    def cases(self, release: Release) -> Iterator[Case]:
        """A case a file; its frames come when it is read."""
        self.rows = self.table_rows(release)
        self.classes = tuple(sorted({row["label"] for row in (self.rows or {}).values() if row.get("label")}))
        self.patients: dict[str, str] = {}
        for file in release.match(rf"(?!(?i:masks)/)(?P<stem>{self.layout})"):
            path = PurePosixPath(file["stem"])
            yield Case(str(path.with_suffix("") if path.suffix[1:].isalpha() else path), file[0])

    def count(self, path: Path | None) -> int | None:
        """Unknown: a clip is read only once."""
        self._open(path)
        return None

    def items(self, path: Path | None) -> Iterator[Item]:
        """The frames of every file in turn."""
        release, cases = self._open(path)
        masks = masks_of(release, {case.name for case in cases})
        count = 0
        for case in cases:
            for item in self.of_one_file(release, case.image, self._frames(release, case, masks)):
                for mask in masks.get(item.name, ()):
                    self.skipped.pop(mask, None)  # where all masks stand until an image takes them
                count += 1
                yield item
        if not count and cases:
            reason = self.skipped[cases[0].image]
            raise UsbenchError(f"no file of {release.path} gave an image; of '{cases[0].image}': {reason}.")

    def _frames(self, release: Release, case: Case, masks: dict[str, list[str]]) -> Iterator[Item]:
        """The B-mode regions of every frame of a file; says what was left out of it."""
        try:
            film = read_film(release.read(case.image), called_so=case.image != case.name)
        except NoPicture as reason:
            self.skip(case.image, str(reason))
            return
        facts: dict[str, Any] = {"tag": self.anatomy or film.part, "fps": film.fps, "device": film.device}
        if film.patient:
            facts["patient"] = self.patients.setdefault(film.patient, f"p{len(self.patients) + 1}")

        def made(taken: tuple[int, np.ndarray]) -> list[Item] | str:
            frame, picture = taken
            name, moment = case.name, {}
            if film.count > 1:
                name, moment = f"{name}/{frame}", {"video": name, "frame": frame, "time": film.times[frame]}
            if (row := self._row(name, case.name)) is None:
                return "no row in the table"
            if any(is_coloured(picture[view.where]) for view in film.views):
                return "colours, as of Doppler, elastography or a tinted map"
            known = {**facts, **moment, "label": self.label(row.get("label", "")), **facts_of(row)}
            mask = self.joined(release, case.image, masks.get(name), film.shape)
            return [
                with_sector(Item(**{
                    "name": f"{name}/r{number}" if number > 1 else name, "image": grey(picture[view.where]),
                    "mask": None if mask is None else mask[view.where], "pixel_mm": view.pixel_mm, **known,
                }))
                for number, view in enumerate(film.views, 1)
            ]  # fmt: skip

        without: Counter[str] = Counter()
        for found in in_order(made, film.pictures(self.every)):
            if isinstance(found, str):
                without[found] += 1
            else:
                yield from found
        if without:
            said = [f"{number} of its {film.count} pictures: {why}" for why, number in without.items()]
            self.skip(case.image, "; ".join(said))

    def _row(self, name: str, file: str) -> dict[str, str] | None:
        """What the table says of a frame, else of its file; nothing without a table, None where it has neither."""
        if self.rows is None:
            return {}
        return next((self.rows[key] for key in (name, file, PurePosixPath(file).name) if key in self.rows), None)
