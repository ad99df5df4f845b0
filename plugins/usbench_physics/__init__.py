"""What an ultrasound image owes to physics and to the knobs of the scanner, as augmentation; and recipes of papers."""

from usbench import hookimpl

SIMCLR = "Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709"
USCL = "Chen et al., MICCAI 2021, https://arxiv.org/abs/2011.13066"
IVPP = "VanBerlo et al., 2024, https://arxiv.org/abs/2403.07715"
CUTOUT = "DeVries & Taylor, 2017, https://arxiv.org/abs/1708.04552"

STEPS = {
    "speckle": (
        "texture:Speckle", {"strength": (0.0, 0.4), "grain": (0.02, 0.04)}, "",
        "multiplicative Rayleigh noise of a drawn strength and grain, wider than deep",
    ),
    "blur": (
        "texture:Blur", {"sigma": (0.002, 0.01), "p": 0.5}, "",
        "Gaussian blur of a drawn width, in which the black outside has no part",
    ),
    "tgc": (
        "depth:TGC", {"strength": (0.0, 0.7), "sliders": 6}, "",
        "time-gain compensation: a smooth random gain over depth",
    ),
    "attenuation": (
        "depth:Attenuation", {"rate": (-0.5, 1.0)}, "",
        "exponential decay or enhancement with depth from the top of the sector",
    ),
    "shadow": (
        "depth:Shadow", {"strength": (0.3, 0.8), "width": (0.05, 0.2), "spread": (0.0, 0.15), "p": 0.7}, "",
        "an acoustic shadow: what lies below a drawn point is darkened, with soft edges",
    ),
    "gain": (
        "display:Gain",
        {"brightness": 0.2, "contrast": 0.3, "gamma": 0.25, "dynamic_range": 0.1, "p": 1.0}, "",
        "the display's dynamic range, gamma, contrast and brightness",
    ),
    "sector-crop": (
        "crop:SectorCrop", {"scale": (0.3, 1.0), "flip": 0.5, "local_scale": (0.1, 0.3)}, "",
        "square crop inside the sector's box, aspect kept, no rotation; horizontal flip",
    ),
    "cutout": (
        "erase:Cutout", {"area": (0.02, 0.08), "ratio": (0.5, 2.0), "holes": 1, "fill": "mean", "p": 0.7}, CUTOUT,
        "rectangles inside the sector erased to its mean grey or to black",
    ),
}  # fmt: skip


@hookimpl
def usbench_augmentations(register):
    for name, (factory, options, reference, summary) in STEPS.items():
        register(name, f"usbench_physics.{factory}", options=options, reference=reference, summary=summary)
    register(
        "simclr", "usbench_physics.recipes:simclr", reference=SIMCLR,
        options={"scale": (0.08, 1.0), "strength": 0.5, "blur": 0.5},
        summary="resized crop, flip, brightness and contrast, blur: what of SimCLR's recipe a grey image can have",
    )  # fmt: skip
    register(
        "uscl", "usbench_physics.recipes:uscl", reference=USCL, reconstruction=True,
        options={"scale": (0.8, 1.0), "jitter": 0.4},
        summary="mild resized crop, flip, brightness and contrast (how much of the latter is our choice)",
    )  # fmt: skip
    register(
        "ivpp", "usbench_physics.recipes:ivpp", reference=IVPP, reconstruction=True,
        options={"scale": (0.4, 1.0), "jitter": 0.4, "blur": 0.5},
        summary="resized crop, flip, brightness and contrast, blur (our reconstruction of the pipeline)",
    )  # fmt: skip
