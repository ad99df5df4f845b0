"""BrEaST-Lesions-USG, five Polish centres, in The Cancer Imaging Archive."""

from __future__ import annotations

from collections.abc import Iterator

from usbench.data.importing import Case, Importer, Release, number


class BrEaST(Importer):
    """One image a patient; the clinical table names the mask of the tumour, gives its class, and the pixel in cm.

    A case without a tumour is normal: its mask is empty. Masks of other lesions (`_other1.png`) are left out. The
    table lies beside the images, so name the folder that holds both; the images may still be zipped there.
    """

    source = "https://www.cancerimagingarchive.net/collection/breast-lesions-usg/"
    licence = "CC BY 4.0"
    citation = (
        "Pawłowska et al.: Curated benchmark dataset for ultrasound based breast lesion analysis. Sci Data 11, 2024"
    )
    classes = ("benign", "malignant", "normal")
    anatomy = "breast"
    layout = r"(?:[^/]*images_and_masks/)?case\d{3}\.png"
    example = "case001.png"

    def cases(self, release: Release) -> Iterator[Case]:
        columns = ("CaseID", "Image_filename", "Mask_tumor_filename", "Pixel_size", "Classification")
        table = release.table("*clinical-data*.xlsx", columns)
        rows = {row.Image_filename: row for row in table.itertuples()}
        for image in release.match(r"(.*/)?(case\d{3})\.png"):
            folder, name = image[1] or "", image[2]
            row = rows.pop(f"{name}.png", None)
            if row is None:
                self.skip(image[0], "it has no row in the clinical table")
                continue
            masks = [folder + row.Mask_tumor_filename] if row.Mask_tumor_filename else []
            yield Case(
                name, image[0], masks, label=self.label(row.Classification), patient=row.CaseID,
                pixel_mm=10 * number(row.Pixel_size),
            )  # fmt: skip
        for other in release.match(r".*_other\d*\.png"):
            self.skip(other[0], "it is the mask of something that is no tumour")
        for absent in rows:
            self.skip(absent, "it has a row in the clinical table but no image")
