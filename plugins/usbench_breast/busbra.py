"""BUS-BRA, National Institute of Cancer, Rio de Janeiro."""

from __future__ import annotations

from collections.abc import Iterator

from usbench.data.importing import Case, Importer, Release, whole


class BUSBRA(Importer):
    """One or two images a patient; `bus_data.csv` has patient, class and scanner; the folds are the official ones."""

    source = "https://zenodo.org/records/8231412"
    licence = "free use with citation (LICENSE.txt in the release)"
    citation = "Gómez-Flores et al.: BUS-BRA, a breast ultrasound dataset for assessing CAD systems. Med Phys 51, 2024"
    classes = ("benign", "malignant")
    anatomy = "breast"
    layout = r"Images/bus_\d+-\w+\.png"
    example = "Images/bus_0001-l.png"

    def __init__(self, folds: int = 5) -> None:
        super().__init__(folds=folds)
        if folds not in (5, 10):
            raise ValueError(f"the official folds are 5 or 10, not {folds}.")
        self.folds = folds

    def cases(self, release: Release) -> Iterator[Case]:
        table = release.table("bus_data.csv", ("ID", "Case", "Pathology", "Device"))
        folds = release.table(f"{self.folds}-fold-cv.csv", ("ID", "kFold"))
        fold = dict(zip(folds.ID, folds.kFold, strict=True))
        rows = {row.ID: row for row in table.itertuples()}
        for image in release.match(r"Images/bus_(\d+-\w+)\.png"):
            row = rows.pop(f"bus_{image[1]}", None)
            if row is None:
                self.skip(image[0], "it has no row in bus_data.csv")
                continue
            mask = f"Masks/mask_{image[1]}.png"
            yield Case(
                row.ID, image[0], [mask] if mask in release.files else None, patient=row.Case, device=row.Device,
                label=self.label(row.Pathology), fold=whole(fold.get(row.ID, "0")) - 1,
            )  # fmt: skip
        for absent in rows:
            self.skip(absent, "it has a row in bus_data.csv but no image")
