"""Images of one's own, with masks and a table where there are any."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from usbench.data.importing import Case, Importer, Release, number, whole
from usbench.errors import UsbenchError

TEXTS = ("tag", "patient", "video", "device")
COUNTS = ("frame", "fold")
NUMBERS = ("time", "fps", "pixel_mm")
IMAGE = r"(?i:png|jpe?g|bmp|tiff?|gif|webp)"


class Folder(Importer):
    """`images/x.png`, its masks `masks/x.png`, `masks/x_mask.png`, `masks/x_1.png`, and a row `x.png` of a CSV.

    The CSV lies beside `images/`; its column `name` (or `file`, `image`) names the image, `label` its class, and tag,
    patient, video, frame, device, fold, time, fps, pixel_mm what else is known. Without a CSV, a subfolder is a class.
    """

    generic = True
    layout = rf"(?i:images)/.+\.{IMAGE}"
    example = "images/a.png"

    def __init__(self, name: str = "", licence: str = "", tag: str = "") -> None:
        super().__init__(name=name, licence=licence, tag=tag)
        self.name, self.anatomy = name, tag
        self.licence = licence or "not stated"
        self.source = "a folder of one's own"

    def cases(self, release: Release) -> Iterator[Case]:
        images = list(release.match(rf"(?i:images)/(?P<stem>(?:(?P<folder>[^/]+)/)?.+)\.{IMAGE}"))
        masks, annotated = self._masks(release, [image["stem"] for image in images])
        rows = self._rows(release)
        labels = (
            [row.get("label", "") for row in rows.values()] if rows else [image["folder"] or "" for image in images]
        )
        self.classes = tuple(sorted({label for label in labels if label}))
        for image in images:
            stem = image["stem"]
            row = rows.get(stem, rows.get(PurePosixPath(stem).name)) if rows else {}
            if row is None:
                self.skip(image[0], "it has no row in the table")
                continue
            label = row.get("label", "") if rows else image["folder"] or ""
            yield Case(
                stem, image[0], masks.get(stem) if annotated else None, **_facts(row),
                label=self.label(label),
            )  # fmt: skip

    def _masks(self, release: Release, stems: list[str]) -> tuple[dict[str, list[str]], bool]:
        """Stem of an image → its masks; an image's own stem first, then with what tells several apart cut off."""
        known, masks = set(stems), defaultdict(list)
        for mask in release.match(rf"(?i:masks)/(.+?)((?:_mask|_gt|_seg)?(?:_\d+)?)\.{IMAGE}"):
            for stem in (mask[1] + mask[2], mask[1] + mask[2].removesuffix("_mask"), mask[1]):
                if stem in known:
                    masks[stem].append(mask[0])
                    break
        return masks, bool(masks)

    def _rows(self, release: Release) -> dict[str, dict[str, str]]:
        """Stem of an image → its row of the one CSV."""
        if not any(release.match(r"[^/]+\.csv")):
            return {}
        table: pd.DataFrame = release.table("*.csv", ())
        table.columns = [column.lower() for column in table.columns]
        key = next((column for column in ("name", "file", "filename", "image") if column in table.columns), None)
        if key is None:
            raise UsbenchError(
                f"the table of {release.path} has no column 'name': its columns are {', '.join(table.columns)}."
            )
        known = [column for column in ("label", *TEXTS, *COUNTS, *NUMBERS) if column in table.columns]
        stems = table[key].str.removeprefix("images/").str.replace(rf"\.{IMAGE}$", "", regex=True)
        rows = [{column: str(row[column]) for column in known} for _, row in table.iterrows()]
        return dict(zip(stems, rows, strict=True))


def _facts(row: dict[str, str]) -> dict[str, Any]:
    """What a row says, as fields of an item; an empty cell is unknown."""
    texts = {field: row[field] for field in TEXTS if row.get(field)}
    counts = {field: whole(row[field]) for field in COUNTS if row.get(field)}
    return {**texts, **counts, **{field: number(row[field]) for field in NUMBERS if row.get(field)}}
