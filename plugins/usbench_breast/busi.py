"""BUSI, Baheya Hospital, Cairo."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from usbench.data.importing import Case, Importer, Release


class BUSI(Importer):
    """A folder a class; several lesions of an image lie in `_mask.png`, `_mask_1.png`, … and are joined.

    Normal images come with an empty mask. No patient is known.
    """

    source = "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset"
    licence = "CC0 1.0 (on its public listing)"
    citation = "Al-Dhabyani, Gomaa, Khaled, Fahmy: Dataset of breast ultrasound images. Data in Brief 28, 2020"
    classes = ("benign", "malignant", "normal")
    anatomy = "breast"
    layout = r"(?:benign|malignant|normal)/(?:benign|malignant|normal) \(\d+\)\.png"
    example = "benign/benign (1).png"

    def cases(self, release: Release) -> Iterator[Case]:
        masks = defaultdict(list)
        for mask in release.match(r"(\w+/\w+ \(\d+\))_mask(?:_\d+)?\.png"):
            masks[mask[1]].append(mask[0])
        for image in release.match(r"((\w+)/(\w+ \(\d+\)))\.png"):
            yield Case(image[3], image[0], masks.get(image[1]), label=self.label(image[2]))
