"""BUS-UCLM, University Hospital of Ciudad Real."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from usbench.data.importing import Case, Importer, Item, Release, read_colour


class BUSUCLM(Importer):
    """The mask's colour is the class: green benign, red malignant, black normal. The name's letters are the patient.

    An image with both colours counts as malignant.
    """

    source = "https://doi.org/10.1038/s41597-025-04562-3"
    licence = "CC BY 4.0"
    citation = "Vallez et al.: BUS-UCLM, breast ultrasound lesion segmentation dataset. Scientific Data 12, 2025"
    classes = ("benign", "malignant", "normal")
    anatomy = "breast"
    layout = r"images/[A-Z]{4}_\d{3}\.png"
    example = "images/ALWI_000.png"

    def cases(self, release: Release) -> Iterator[Case]:
        for image in release.match(r"images/(([A-Z]{4})_\d{3})\.png"):
            mask = f"masks/{image[1]}.png"
            if mask not in release.files:
                self.skip(image[0], "it has no mask, and so no class")
                continue
            yield Case(image[1], image[0], [mask], patient=image[2], device="Siemens ACUSON S2000")

    def mask(self, data: bytes) -> np.ndarray:
        return (read_colour(data) > 127).any(axis=2)

    def item(self, release: Release, case: Case) -> Item:
        item = super().item(release, case)
        assert case.masks is not None
        red, green = ((read_colour(release.read(case.masks[0]))[..., channel] > 127).any() for channel in (0, 1))
        item.label = 1 if red else 0 if green else 2
        return item
