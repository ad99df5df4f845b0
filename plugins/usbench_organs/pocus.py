"""POCUS, the COVID-19 lung ultrasound data set."""

from __future__ import annotations

from collections.abc import Iterator

from usbench.data.importing import Case, Importer, Release, whole


class POCUS(Importer):
    """A folder a class; `<clip>.<ext>_frame<N>.jpg` is frame N of a clip, any other file a clip of one frame.

    Where a table `frames.csv` (frame, split) lies beside, its five folds are taken; else folds are dealt by clip.
    """

    source = "https://github.com/jannisborn/covid19_ultrasound"
    licence = "a licence an image: CC BY 4.0, CC BY-NC 4.0, CC BY-NC-SA"
    citation = "Born et al.: Accelerating detection of lung pathologies with explainable ultrasound. Appl Sci 11, 2021"
    classes = ("covid", "pneumonia", "regular")
    anatomy = "lung"
    layout = r"image_dataset/(?:covid|pneumonia|regular)/[^/]+\.(?i:jpe?g|png)"
    example = "image_dataset/covid/Cov-Atlas.gif_frame0.jpg"

    def cases(self, release: Release) -> Iterator[Case]:
        fold: dict[str, str] = {}
        if "frames.csv" in release.files:
            table = release.table("frames.csv", ("frame", "split"))
            fold = dict(zip(table.frame, table.split, strict=True))
        clip = r"(?P<clip>.+?)(?:\.\w+_frame(?P<frame>\d+))?"
        for image in release.match(
            rf"image_dataset/(?P<label>covid|pneumonia|regular)/(?P<file>{clip}\.(?i:jpe?g|png))"
        ):
            yield Case(
                image["file"], image[0], label=self.label(image["label"]), video=image["clip"],
                frame=int(image["frame"] or 0), fold=whole(fold.get(image["file"], "")),
            )  # fmt: skip
