"""US-4, the pretraining set of USCL; it was never released whole."""

from __future__ import annotations

from collections.abc import Iterator

from usbench.data.importing import Case, Importer, Release

LUNG = "lung"
CLASSES = {
    **{f"Rb{n}": n - 1 for n in range(1, 6)},  # Butterfly
    **{f"F{n}_": n + 5 for n in range(5)},  # liver fibrosis, grade 0 to 4
    **dict.fromkeys(("Reg", "Ali"), 10),
    **dict.fromkeys(("Cov", "Bli", "Ple", "Oth"), 11),
}


class US4(Importer):
    """A folder a clip, `<clip>/<clip>_frame<N>.jpg`; the class follows from the clip's first three letters."""

    source = "https://github.com/983632847/USCL"
    licence = "the licences of its four sources"
    citation = "Chen et al.: USCL, pretraining deep ultrasound image diagnosis model. MICCAI 2021"
    classes = (*(f"butterfly-{n}" for n in range(1, 6)), *(f"fibrosis-{n}" for n in range(5)), "regular", "finding")
    layout = r"(?P<clip>[^/]+)/(?P=clip)_frame\d+\.jpe?g"
    example = "Cov-Atlas/Cov-Atlas_frame0.jpg"

    def cases(self, release: Release) -> Iterator[Case]:
        for image in release.match(r"(?P<clip>[^/]+)/((?P=clip)_frame(?P<frame>\d+))\.jpe?g"):
            label = CLASSES.get(image["clip"][:3], -1)
            yield Case(
                image[2], image[0], label=label, video=image["clip"], frame=int(image["frame"]),
                tag="liver" if 5 <= label < 10 else LUNG if label >= 10 else "",
            )  # fmt: skip
