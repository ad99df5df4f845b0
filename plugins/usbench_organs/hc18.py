"""HC18, Radboud University Medical Center, Nijmegen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from usbench.data.importing import Case, Importer, Release, fill_outline, number, read_mask


class HC18(Importer):
    """Fetal heads; an annotation is the outline of an ellipse, which is filled. The official test set has none.

    `010_2HC.png` is another image of the exam of `010_HC.png`; numbers start anew in the test set.
    """

    source = "https://zenodo.org/records/1322001"
    licence = "CC BY 4.0"
    citation = "van den Heuvel et al.: Automated measurement of fetal head circumference. PLOS ONE 13(8), 2018"
    anatomy = "fetal head"
    layout = r"(?:training|test)_set/\d+_\d*HC\.png"
    example = "training_set/010_HC.png"

    def cases(self, release: Release) -> Iterator[Case]:
        for part, tables in (("training", "training_set*.csv"), ("test", "test_set*.csv")):
            images = list(release.match(rf"({part}_set/((\d+)_\d*HC))\.png"))
            if not images:
                continue
            table = release.table(tables, ("filename", "pixel size(mm)"))
            pixel = dict(zip(table["filename"], table["pixel size(mm)"].map(number), strict=True))
            for image in images:
                outline = f"{image[1]}_Annotation.png"
                yield Case(
                    f"{part}-{image[2]}", image[0], [outline] if outline in release.files else None,
                    patient=f"{part}-{image[3]}", pixel_mm=pixel.get(f"{image[2]}.png", float("nan")),
                )  # fmt: skip

    def mask(self, data: bytes) -> np.ndarray:
        return fill_outline(read_mask(data))
