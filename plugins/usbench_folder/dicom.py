"""Ultrasound as scanners and archives give it: DICOM stills and clips, through pydicom (the extra `dicom`)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from usbench.data.importing import Case, Item, Release, Undecodable, in_order, with_sector
from usbench.errors import UsbenchError
from usbench_folder.dicom_file import Film, NoPicture, is_dicom, read_film
from usbench_folder.dicom_pixels import Pictures, grey, is_coloured
from usbench_folder.images import Folder, facts_of, masks_of

SUFFIX = r"\.(?i:dcm|dicom|ima)"
COLOURS = "colours, as of Doppler, elastography or a tinted map"
LEFT_OUT = "its picture is left out"
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
        self.sought: set[Hashable] = set()  # of them what was the surest that some file told
        self.bare: set[str] = set()  # what files are called without their folders, where one is

    def recognises(self, path: Path) -> bool:
        """Whether one of its files is DICOM, by its name or by what it says of itself."""
        try:
            return bool(self._open(path)[1])
        except UsbenchError:
            return False

    def root(self, release: Release) -> Release:
        """The one folder beside which nothing is DICOM, where it holds masks or `table.csv`."""
        tops = {name.partition("/")[0] for name in release.files if "/" in name}
        inner = release.within(f"{next(iter(tops), '')}/")
        beside = [name for name in release.files if "/" not in name]
        if len(tops) != 1 or not any(inner.match(r"(?i:masks)/.+|(?i:table\.csv)")):
            return release
        return release if any(self._may_be_dicom(release, name) for name in beside) else inner

    def cases(self, release: Release) -> Iterator[Case]:
        """A case a file; its frames come when it is read."""
        self.rows, self.persons, self.sought = self._whole_rows(release), {}, set()
        self.classes = tuple(sorted({row["label"] for row in (self.rows or {}).values() if row.get("label")}))
        names: list[str] = []
        for found in release.match(r"(?!(?i:masks)/)(?!(?:.+/)?DICOMDIR$).+"):
            if self._may_be_dicom(release, found[0]):
                names.append(re.sub(self.not_in_names, "", found[0]))
                yield Case(names[-1], found[0])
            elif not re.fullmatch(r".+\.(?i:csv|tsv|xlsx?)", found[0]):
                self.skip(found[0], "it is no DICOM file")
        bare = Counter(PurePosixPath(name).name for name in names)
        self.bare = {PurePosixPath(name).name for name in names if bare[PurePosixPath(name).name] == 1}
        for name in (self.rows or {}).keys() - set(names):
            if bare[name] > 1:
                raise UsbenchError(
                    f"the table of {release.path} has a row '{name}', and {bare[name]} files are called so: write "
                    "their folders before them."
                )

    def _may_be_dicom(self, release: Release, name: str) -> bool:
        try:
            return bool(re.search(rf"{SUFFIX}$", name)) or is_dicom(release.read(name, 132))
        except Undecodable:  # said when it is read
            return True

    def _whole_rows(self, release: Release) -> dict[str, dict[str, str]] | None:
        """The rows of the table, whose patients are all of them or none."""
        rows = self.table_rows(release)
        unnamed = [name for name, row in (rows or {}).items() if not row.get("patient")]
        if rows and unnamed and len(unnamed) < len(rows):
            raise UsbenchError(
                f"the table of {release.path} names no patient of '{unnamed[0]}', and of others: fill the column, or "
                "remove it."
            )
        return rows

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
            for mask in (mask for name in masks if f"{name}/".startswith(f"{case.name}/") for mask in masks[name]):
                self.skip(mask, LEFT_OUT)
            return
        pictures, taken = Pictures(film.header, len(film.times)), range(0, len(film.times), self.every)
        persons = film.persons or ((("file", case.name),) if len(film.views) > 1 else ())
        facts = {"tag": self.anatomy or film.part, "fps": film.fps, "device": film.device}
        facts["patient"] = self._patient(persons) if persons else ""

        def made(job: tuple[int, np.ndarray]) -> Made:
            return self._made(release, case, film, masks, facts, job[0], pictures.shown(job[1]))

        without: Counter[str] = Counter()
        for frame in in_order(made, zip(taken, pictures.frames(taken), strict=True)):
            for mask, trouble in frame.masks.items():
                self.skip(mask, trouble)
                if not trouble:
                    del self.skipped[mask]  # where all masks stand until an image takes them
            without[frame.reason] += 1
            yield from frame.items
        said = [
            (f"every picture of it {why}" if number == len(taken) else f"a part of its pictures {why}")
            if len(film.times) > 1 else f"it {why}" for why, number in without.items() if why
        ]  # fmt: skip
        if said:
            self.skip(case.image, "; ".join(said))

    def _patient(self, persons: tuple[Hashable, ...]) -> str:
        """Who it is, by the surest that is told. A file that tells less is of whom the rest of its study is of.

        Where every file has a number, names and studies say nothing: who takes names away may make all of them one.
        """
        seen = [each for each in persons if each == persons[0] or each in self.sought]
        new = f"p{len(set(self.persons.values())) + 1}"
        patient = next((self.persons[each] for each in seen if each in self.persons), new)
        self.sought.add(persons[0])
        for each in persons:
            self.persons.setdefault(each, patient)
        return patient

    def _made(
        self, release: Release, case: Case, film: Film, masks: dict[str, list[str]], facts: dict[str, Any],
        place: int, picture: np.ndarray,
    ) -> Made:  # fmt: skip
        """Of a frame, counted from 0."""
        name, moment = case.name, {}
        if is_clip := len(film.times) > 1:
            name, moment = f"{name}/{place + 1}", {"video": name, "frame": place + 1, "time": film.times[place]}
        if (said := self._said(case.name, name[len(case.name) :], is_clip)) is None:
            return Made([], "has no row in the table", dict.fromkeys(masks.get(name, ()), LEFT_OUT))
        try:
            mask = self.joined(release, case.image, masks.get(name), film.shape)
            if mask is not None and mask.any() and not any(view.of(mask).any() for view in film.views):
                raise Undecodable(f"the mask of '{name}' lies outside of the regions that are B-mode")
        except Undecodable as error:
            if not self.skip_broken:
                raise
            return Made([], "has a mask that cannot be used", dict.fromkeys(masks[name], str(error)))
        items = _cut(film, picture, mask, name, {**facts, **moment, **said})
        where = ", beside what is taken," if items else ""
        reason = f"shows{where} {COLOURS}" if len(items) < len(film.views) else ""
        return Made(items, reason, dict.fromkeys(masks.get(name, ()), "" if items else LEFT_OUT))

    def _said(self, file: str, frame: str, is_clip: bool) -> dict[str, Any] | None:
        """What the table says of a frame (`/12`), else of its file; None where it has neither."""
        if self.rows is None:
            return {}
        bare = PurePosixPath(file).name
        called = [file, bare] if bare in self.bare else [file]
        keys = [f"{name}{frame}" for name in called] + called
        if (key := next((key for key in keys if key in self.rows), None)) is None:
            return None
        said = {**facts_of(self.rows[key]), "label": self.label(self.rows[key].get("label", ""))}
        own = not is_clip or keys.index(key) < len(called)
        return {what: value for what, value in said.items() if own or what not in OWN}


class Made(NamedTuple):
    """What became of a frame."""

    items: list[Item]
    reason: str  # why a region of it is left out, or all
    masks: dict[str, str]  # each with why it is not used


def _cut(film: Film, picture: np.ndarray, mask: np.ndarray | None, name: str, known: dict[str, Any]) -> list[Item]:
    """An item a region, without those that show colours."""
    items: list[Item] = []
    marked = [mask is not None and bool(view.of(mask).any()) for view in film.views]
    for number, view in enumerate(film.views, 1):
        part, suffix = view.of(picture), f"/r{number}" if number > 1 else ""
        is_meant = mask is not None and (marked[number - 1] or not any(marked))  # else the region beside it is
        facts = {"pixel_mm": view.pixel_mm, **known}
        facts |= {"video": f"{known['video']}{suffix}"} if known.get("video") else {}
        item = with_sector(
            Item(f"{name}{suffix}", grey(part), view.of(mask) if mask is not None and is_meant else None, **facts)
        )
        assert item.sector is not None
        if not is_coloured(part, item.sector):
            items.append(item)
    return items
