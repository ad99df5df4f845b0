"""Ultrasound as scanners and archives give it: DICOM stills and clips, through pydicom (the extra `dicom`)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from usbench.data.importing import Case, Item, Release, Undecodable, in_order, with_sector
from usbench.errors import UsbenchError
from usbench_folder.dicom_file import Film, NoPicture, is_dicom, read_film
from usbench_folder.dicom_pixels import grey, is_coloured, pictures
from usbench_folder.images import Folder, facts_of, masks_of

SUFFIX = r"\.(?i:dcm|dicom|ima)"
COLOURS = "colours, as of Doppler, elastography or a tinted map"
OWN = ("video", "frame", "time")  # what a table's row of a whole clip cannot say of its frames


class Dicom(Folder):
    """Any tree of DICOM files, whatever they are called. Masks are `masks/x.png`, of frame 12 `masks/x/12.png`.

    From the header come patient, device, size of a pixel, and the times of frames. Where it names regions, each that is
    B-mode is cut out, so that burnt-in names and scales stay behind; where it names none, the whole picture is taken.
    Masks are drawn on the whole picture and cut with it; frames are counted from 1, as DICOM does. Colour Doppler,
    M-mode, spectra and volumes are left out. A CSV at the top may say more, as with `folder`: its column `name` names
    the file, or a frame (`x/12`); patients are then its own, and not those of the headers. Patients are counted (`p1`,
    `p2`, …), but images are called by the paths of their files: rename folders that tell who a patient is.

    Args:
        name: what the set is called from then on, as in `dicom:kidneys`.
        licence: under which its images may be used; it goes with them into exports.
        tag: which organ is seen, for losses that ask; else what the header says.
        every: each so many-th frame of a clip is taken.
    """

    generic = True
    exact = True
    layout = r".+"
    example = "study/IM0001.dcm"
    not_in_names = rf"{SUFFIX}(?=/|$)"
    beside = "at the top"

    def __init__(self, name: str = "", licence: str = "", tag: str = "", every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every is {every}: each so many-th frame, from 1")
        super().__init__(name=name, licence=licence, tag=tag)
        self.every = every
        self.source = "DICOM files of one's own"
        self.rows: dict[str, dict[str, str]] | None = None
        self.persons: dict[Hashable, str] = {}

    def recognises(self, path: Path) -> bool:
        """Never: any file may be DICOM, so that the importer has to be named."""
        return False

    def root(self, release: Release) -> Release:
        """The one folder that holds all, where it holds masks or a table."""
        tops = {name.partition("/")[0] for name in release.files}
        inner = release.within(f"{next(iter(tops), '')}/")
        is_root = len(tops) == 1 and any(inner.match(r"(?i:masks)/.+|[^/]+\.(?i:csv)"))
        return inner if is_root else release

    def cases(self, release: Release) -> Iterator[Case]:
        """A case a file; its frames come when it is read."""
        self.rows, self.persons = self.table_rows(release), {}
        self.classes = tuple(sorted({row["label"] for row in (self.rows or {}).values() if row.get("label")}))
        called: Counter[str] = Counter()
        for found in release.match(r"(?!(?i:masks)/)(?!(?:.+/)?DICOMDIR$).+"):
            file = found[0]
            if re.search(rf"{SUFFIX}$", file) or is_dicom(release.read(file, 132)):
                case = Case(re.sub(self.not_in_names, "", file), file)
                called[PurePosixPath(case.name).name] += 1
                yield case
            elif not re.fullmatch(r".+\.(?i:csv|tsv|xlsx?)", file):
                self.skip(file, "it is no DICOM file")
        for name in self.rows or ():
            if called[name] > 1:
                raise UsbenchError(
                    f"the table of {release.path} has a row '{name}', and {called[name]} files are called so: write "
                    "their folders before them."
                )

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
                count += 1
                yield item
        if not count:
            reasons = Counter(self.skipped[case.image] for case in cases).most_common(1) or [("it is no DICOM file", 0)]
            raise UsbenchError(f"no file of {release.path} gave an image, most often because {reasons[0][0]}.")

    def _frames(self, release: Release, case: Case, masks: dict[str, list[str]]) -> Iterator[Item]:
        """The B-mode regions of every frame of a file; says what was left out of it."""
        try:
            film = read_film(release.read(case.image))
        except NoPicture as reason:
            self.skip(case.image, str(reason))
            return
        person = film.person and self.persons.setdefault(film.person, f"p{len(self.persons) + 1}")
        facts = {"tag": self.anatomy or film.part, "fps": film.fps, "device": film.device, "patient": person or ""}
        is_clip = len(film.times) > 1
        taken = range(0, len(film.times), self.every)

        def made(job: tuple[int, np.ndarray]) -> tuple[list[Item], str]:
            """Of a frame counted from 0 and its picture; and why regions of it are left out."""
            place, picture = job
            name, moment = case.name, {}
            if is_clip:
                name, moment = f"{name}/{place + 1}", {"video": name, "frame": place + 1, "time": film.times[place]}
            if (said := self._said(name, case.name)) is None:
                return [], "has no row in the table"
            known = {**facts, **moment, **said}
            try:
                mask = self.joined(release, case.image, masks.get(name), film.shape)
                for file in masks.get(name, ()):
                    self.skipped.pop(file, None)  # where all masks stand until an image takes them
                return self._cut(film, picture, mask, name, known)
            except Undecodable as error:
                if not self.skip_broken:
                    raise
                return [], f"cannot be used ({error})"

        without: Counter[str] = Counter()
        whole = True
        for items, reason in in_order(made, zip(taken, pictures(film.header, taken), strict=True)):
            yield from items
            whole = whole and not items
            without[reason] += bool(reason)
        for reason in filter(None, without):
            what = ("every picture of it" if is_clip else "it") if whole else "a part of its pictures"
            self.skip(case.image, f"{what} {reason}")

    def _cut(
        self, film: Film, picture: np.ndarray, mask: np.ndarray | None, name: str, known: dict[str, Any]
    ) -> tuple[list[Item], str]:
        """An item a region, without those that show colours."""
        items: list[Item] = []
        seen = [mask is not None and bool(view.of(mask).any()) for view in film.views]
        if mask is not None and mask.any() and not any(seen):
            raise Undecodable(f"the mask of '{name}' lies outside of the regions that are B-mode")
        for number, view in enumerate(film.views, 1):
            part = view.of(picture)
            is_meant = mask is not None and (seen[number - 1] or not any(seen))  # else the region beside it is
            item = with_sector(Item(**{
                "name": f"{name}/r{number}" if number > 1 else name, "image": grey(part),
                "mask": view.of(mask) if mask is not None and is_meant else None, "pixel_mm": view.pixel_mm, **known,
            }))  # fmt: skip
            assert item.sector is not None
            if not is_coloured(part, item.sector):
                items.append(item)
        return items, f"shows {COLOURS}" if len(items) < len(film.views) else ""

    def _said(self, name: str, file: str) -> dict[str, Any] | None:
        """What the table says of a frame, else of its file; None where it has neither."""
        if self.rows is None:
            return {}
        for key in (name, file, PurePosixPath(file).name):
            if (row := self.rows.get(key)) is not None:
                break
        else:
            return None
        if "patient" in row and not row["patient"]:
            raise UsbenchError(f"the table names no patient of '{key}', and of others: fill the column, or remove it.")
        said = {**facts_of(row), "label": self.label(row.get("label", ""))}
        return {what: value for what, value in said.items() if key == name or what not in OWN}
