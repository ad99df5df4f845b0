"""Images of one's own, with masks and a table where there are any."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Container, Iterator
from pathlib import PurePosixPath
from typing import Any, ClassVar

import pandas as pd

from usbench.data.importing import Case, Importer, Release, number, whole
from usbench.errors import UsbenchError

TEXTS = ("tag", "patient", "video", "device")
COUNTS = ("frame", "fold")
NUMBERS = ("time", "fps", "pixel_mm")
NAMES = ("name", "file", "filename", "image")
READ = ("label", *TEXTS, *COUNTS, *NUMBERS)
IMAGE = r"(?i:png|jpe?g|bmp|tiff?|gif|webp)"


class Folder(Importer):
    """`images/x.png`, its masks `masks/x.png`, `masks/x_mask.png`, `masks/x_1.png`, and a row `x.png` of a CSV.

    The CSV lies beside `images/`; its column `name` (or `file`, `image`) names the image, `label` its class, and tag,
    patient, video, frame, device, fold, time, fps, pixel_mm what else is known. Without a CSV, a subfolder is a class;
    with one, an image that has no row in it is left out, and so is any other table.

    Args:
        name: what the set is called from then on, as in `folder:kidneys`.
        licence: under which its images may be used; it goes with them into exports.
        tag: which organ is seen, for losses that ask.
    """

    generic = True
    layout = rf"(?i:images)/.+\.{IMAGE}"
    example = "images/a.png"
    not_in_names: ClassVar[str] = rf"^(?i:images)/|\.{IMAGE}$"  # what a table may write and leave out
    beside: ClassVar[str] = "beside images/"  # where the table lies

    def __init__(self, name: str = "", licence: str = "", tag: str = "") -> None:
        super().__init__(name=name, licence=licence, tag=tag)
        self.name, self.anatomy = name, tag
        self.licence = licence or "not stated"
        self.source = "a folder of one's own"

    def cases(self, release: Release) -> Iterator[Case]:
        images = list(release.match(rf"(?i:images)/(?P<stem>(?:(?P<folder>[^/]+)/)?.+)\.{IMAGE}"))
        masks = masks_of(release, {image["stem"] for image in images})
        rows = self.table_rows(release)
        if rows is None:
            rows = {image["stem"]: {"label": image["folder"] or ""} for image in images}
        self.classes = tuple(sorted({row["label"] for row in rows.values() if row.get("label")}))
        found = [rows.get(image["stem"], rows.get(PurePosixPath(image["stem"]).name)) for image in images]
        if not any(row is not None for row in found):
            raise UsbenchError(f"no image of {release.path} has a row in the table: name '{images[0][0]}' there, say.")
        told = {stem for image in images for stem in (image["stem"], PurePosixPath(image["stem"]).name)}
        if strange := sum(name not in told for name in rows):
            self.skip(f"{strange} of the table's rows", "no image is called so")
        for image, row in zip(images, found, strict=True):
            stem = image["stem"]
            if row is None:
                self.skip(image[0], "it has no row in the table")
                continue
            yield Case(
                stem, image[0], masks.get(stem), **facts_of(row),
                label=self.label(row.get("label", "")),
            )  # fmt: skip

    def table_rows(self, release: Release) -> dict[str, dict[str, str]] | None:
        """Stem of an image → its row of the one CSV; None where there is no CSV."""
        tables = [found[0] for found in release.match(r".+\.(?i:csv|tsv|xlsx?)")]
        own = [table for table in tables if re.fullmatch(r"[^/]+\.(?i:csv)", table)]
        for other in tables:
            if other not in own:
                self.skip(other, f"only a CSV {self.beside} is read as a table")
        if not own:
            return None
        table: pd.DataFrame = release.table("*.csv", ())
        called = f"the table '{own[0]}' of {release.path}"
        table.columns = [column.lower() for column in table.columns]
        plain = [re.sub(r"\.\d+$", "", column) for column in table.columns]  # pandas numbers what has one name
        if twice := [column for column in (*NAMES, *READ) if plain.count(column) > 1]:
            raise UsbenchError(f"{called} has the column '{twice[0]}' twice: keep one.")
        key = next((column for column in NAMES if column in table.columns), None)
        if key is None:
            raise UsbenchError(f"{called} has no column 'name': its columns are {', '.join(table.columns)}.")
        table.index = table[key].str.replace(self.not_in_names, "", regex=True)
        table = table[table.index != ""]
        if len(twice := table.index[table.index.duplicated()]):
            raise UsbenchError(f"{called} has two rows of the image '{twice[0]}': keep one.")
        read = [column for column in READ if column in table.columns]
        for column in table.columns.difference([*read, key, *NAMES]):
            near = "".join(f": did you mean '{known}'?" for known in difflib.get_close_matches(column, READ, n=1))
            self.skip(f"the table's column '{column}'", f"nobody reads it{near}")
        for column in (column for column in read if column in (*COUNTS, *NUMBERS)):
            parse = whole if column in COUNTS else number
            if odd := sum(bool(text) and parse(text) != number(text) for text in table[column]):
                self.skip(f"{odd} in the table's column '{column}'", f"no {'whole ' * (column in COUNTS)}number")
        return table[read].to_dict("index")


def masks_of(release: Release, stems: Container[str]) -> dict[str, list[str]]:
    """Stem of an image → its masks; an image's own stem first, then with what tells several apart cut off.

    A mask whose image is none of `stems` stands under every stem that it may mean.
    """
    masks = defaultdict(list)
    for mask in release.match(rf"(?i:masks)/(.+?)((?:_mask|_gt|_seg)?(?:_\d+)?)\.{IMAGE}"):
        meant = dict.fromkeys((mask[1] + mask[2], mask[1] + mask[2].removesuffix("_mask"), mask[1]))
        for stem in [stem for stem in meant if stem in stems][:1] or meant:
            masks[stem].append(mask[0])
    return dict(masks)


def facts_of(row: dict[str, str]) -> dict[str, Any]:
    """What a row says, as fields of an item; an empty cell is unknown."""
    texts = {field: row[field] for field in TEXTS if row.get(field)}
    counts = {field: whole(row[field]) for field in COUNTS if row.get(field)}
    return {**texts, **counts, **{field: number(row[field]) for field in NUMBERS if row.get(field)}}
