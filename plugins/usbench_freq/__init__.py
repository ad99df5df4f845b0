"""Spatial and frequency augmentation, their joint recipe `freq`, and single steps on the spectrum."""

from usbench import hookimpl

RCL = "Ellis et al., arXiv 2502.02489, https://arxiv.org/abs/2502.02489"
FDA = "Yang & Soatto, CVPR 2020, https://arxiv.org/abs/2004.05498"

SPATIAL = {"scale": (0.3, 1.0), "ratio": (0.75, 1.33), "degrees": 15.0, "flip": 0.5, "local_scale": (0.1, 0.3)}
FREQUENCY = {
    "band": 0.5, "band_width": (0.05, 0.25), "cut": 0.2, "mix": 0.5, "mix_size": 0.1, "gain": 0.3,
}  # fmt: skip

BAND_STOP = {"band_width": (0.03, 0.15), "lowest": 0.08, "p": 0.8}
AMPLITUDE_MIX = {"share": (0.0, 1.0), "reach": (0.01, 0.06)}
PHASE_JITTER = {"strength": (0.0, 0.4), "reach": 0.04}


@hookimpl
def usbench_augmentations(register):
    register("none", "usbench_freq.spatial:nothing", summary="no augmentation: both views are the image itself")
    register(
        "spatial", "usbench_freq.spatial:Spatial", options=SPATIAL, reference=RCL,
        summary="resized crop inside the sector, horizontal flip, small rotation: one affine a view",
    )  # fmt: skip
    register(
        "freq-only", "usbench_freq.frequency:Frequency", options=FREQUENCY, reference=f"{RCL}; {FDA}",
        summary="amplitude of the 2-D spectrum: band-stop, low- and high-pass, mix with another image, gain",
        reconstruction=True,
    )  # fmt: skip
    register(
        "freq", "usbench_freq.frequency:freq", options={**SPATIAL, **FREQUENCY}, reference=f"{RCL}; {FDA}",
        summary="spatial, then freq-only: the joint recipe of the RCL line", reconstruction=True,
    )  # fmt: skip
    register(
        "band-stop", "usbench_freq.steps:BandStop", options=BAND_STOP,
        summary="a random ring of the spectrum is set to zero",
    )  # fmt: skip
    register(
        "amplitude-mix", "usbench_freq.steps:AmplitudeMix", options=AMPLITUDE_MIX, reference=FDA,
        summary="low-frequency amplitudes mixed with another image's, the phase kept (FDA inside the batch)",
    )  # fmt: skip
    register(
        "phase-jitter", "usbench_freq.steps:PhaseJitter", options=PHASE_JITTER,
        summary="phases shifted a little, smoothly over the frequencies; the amplitude kept",
    )  # fmt: skip
