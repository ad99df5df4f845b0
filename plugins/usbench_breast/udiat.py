"""UDIAT, also called Dataset B, Parc Taulí, Sabadell: given on request, under an agreement."""

from __future__ import annotations

from collections.abc import Iterator

from usbench.data.importing import Case, Importer, Release


class UDIAT(Importer):
    """`original/` and `GT/` hold images and masks of one name, `DatasetB.xlsx` the class. Numbers have gaps."""

    source = "http://www2.docm.mmu.ac.uk/STAFF/m.yap/dataset.php (on request)"
    licence = "for research, on request from the authors; not to be passed on"
    citation = "Yap et al.: Automated breast ultrasound lesions detection using CNNs. IEEE JBHI 22(4), 2018"
    classes = ("benign", "malignant")
    anatomy = "breast"
    layout = r"original/\d{6}\.png"
    example = "original/000001.png"

    def cases(self, release: Release) -> Iterator[Case]:
        table = release.table("DatasetB.xlsx", ("Image", "Type"))
        types = {row.Image.removesuffix(".png").split(".")[0].zfill(6): row.Type for row in table.itertuples()}
        for image in release.match(r"original/((\d{6})\.png)"):
            if image[2] not in types:
                self.skip(image[0], "it has no row in DatasetB.xlsx")
                continue
            mask = f"GT/{image[1]}"
            yield Case(
                image[2], image[0], [mask] if mask in release.files else None, label=self.label(types[image[2]]),
                device="Siemens ACUSON Sequoia C512",
            )  # fmt: skip
