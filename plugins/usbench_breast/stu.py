"""STU-Hospital, First Affiliated Hospital of Shantou University."""

from __future__ import annotations

from collections.abc import Iterator

from usbench.data.importing import Case, Importer, Release


class STU(Importer):
    """42 lesions without class or patient; masks have another size than their images and are resized to them."""

    source = "https://github.com/xbhlk/STU-Hospital"
    licence = "not stated by its authors"
    citation = "Zhuang et al.: An RDAU-NET model for lesion segmentation in breast ultrasound images. PLOS ONE 14, 2019"
    anatomy = "breast"
    layout = r"Test_Image_\d+\.png"
    example = "Test_Image_1.png"
    resizes_masks = True

    def cases(self, release: Release) -> Iterator[Case]:
        for image in sorted(release.match(r"Test_Image_(\d+)\.png"), key=lambda image: int(image[1])):
            mask = f"mask_{image[1]}.png"
            yield Case(f"stu-{image[1]}", image[0], [mask] if mask in release.files else None)
