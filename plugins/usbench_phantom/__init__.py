"""A simulator of breast ultrasound: three scanners, exact masks, no download."""

from usbench import hookimpl


@hookimpl
def usbench_datasets(register):
    register(
        "phantom",
        "usbench_phantom.dataset:Phantom",
        summary="simulated breast B-mode from three scanners (l7, l12, c5) with exact lesion masks and cine clips",
        reference="speckle as filtered scatterers: Bamber & Dickinson, Physics in Medicine and Biology 1980",
        options={"domain": "l7", "patients": 94, "size": 128, "seed": 0},
        generated=True,
    )
