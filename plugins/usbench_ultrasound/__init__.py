"""Methods made for ultrasound, most of them on videos, and relatives that they stand on."""

from usbench import hookimpl

HERE = "usbench_ultrasound"
MIXED = {"temperature": 0.5, "label_weight": 0.2, "beta": 0.5}
NEAR = {"fps": 30.0, "stills": True}


@hookimpl
def usbench_losses(register):
    register(
        "uscl", f"{HERE}.uscl:USCL", needs=("video",), uses=("label",),
        options={**MIXED, "projection": 256, "stills": True},
        reference="Chen et al., MICCAI 2021, https://arxiv.org/abs/2011.13066",
        summary="contrast of mixed frames of one video, and its label where there is one",
    )  # fmt: skip
    register(
        "meta-uscl", f"{HERE}.meta:MetaUSCL", needs=("video",), reconstruction=True,
        options={
            "temperature": 0.5, "beta": (3.0, 5.0), "virtual_lr": 0.1, "meta_lr": 6e-5, "held_out": 5,
            "projection": 256, "stills": True,
        },
        reference="Chen et al., IEEE TMI 2022, https://arxiv.org/abs/2212.04097",
        summary="contrast of mixed frames, weighted by what helps on held-out videos (which are held out is ours)",
    )  # fmt: skip
    register(
        "hico", f"{HERE}.hico:HiCo", needs=("video",), uses=("label",), reconstruction=True,
        options={**MIXED, "smoothing": 0.2, "width": 128, "projection": 256, "stills": True},
        reference="Zhang et al., ACCV 2022, https://arxiv.org/abs/2210.04477",
        summary="USCL on three levels of a pyramid and across them (maps are pooled, the classifier's place is ours)",
    )  # fmt: skip
    ivpp = "VanBerlo et al., Frontiers in Imaging 2024, https://arxiv.org/abs/2403.07715"
    register(
        "ivpp", f"{HERE}.ivpp:IVPP", needs=("video",), reference=ivpp,
        options={"seconds": 1.5, **NEAR, "temperature": 0.1, "projection": 128},
        summary="frames of one video a short time apart, weighted by how near: contrast",
    )  # fmt: skip
    register(
        "ivpp-barlow", f"{HERE}.ivpp:IVPPBarlow", needs=("video",), reference=ivpp, reconstruction=True,
        options={"seconds": 3.0, **NEAR, "redundancy_weight": 0.005, "projection": 512},
        summary="the same with weighted Barlow Twins (weights in the correlation are our reading)",
    )  # fmt: skip
    register(
        "ivpp-vicreg", f"{HERE}.ivpp:IVPPVICReg", needs=("video",), reference=ivpp,
        options={
            "seconds": 0.5, **NEAR, "invariance_weight": 25.0, "variance_weight": 25.0, "covariance_weight": 1.0,
            "projection": 512,
        },
        summary="the same with VICReg, its invariance weighted",
    )  # fmt: skip
    register(
        "ucl-hard", f"{HERE}.hard:UCLHard", needs=("video",), reconstruction=True,
        options={"temperature": 0.07, "store": 96, "nearest": 4, "projection": 128},
        reference="Basu et al., MICCAI 2022, https://arxiv.org/abs/2207.13148",
        summary="near frames against far ones of the video, by a curriculum, and other videos (what is stored is ours)",
    )  # fmt: skip
    register(
        "awcl", f"{HERE}.tagged:AWCL", needs=("tag",), options={"temperature": 0.5, "projection": 128},
        reference="Fu et al., ECCV workshops 2022, https://doi.org/10.1007/978-3-031-25066-8_23",
        summary="images of one anatomy attract each other",
    )  # fmt: skip
    register(
        "supcon", f"{HERE}.tagged:SupCon", needs=("label",), options={"temperature": 0.1, "projection": 128},
        reference="Khosla et al., NeurIPS 2020, https://arxiv.org/abs/2004.11362",
        summary="images of one class attract each other",
    )  # fmt: skip
    register(
        "relational", f"{HERE}.relational:RelationalReasoning",
        options={"augmentations": 4, "hidden": 256, "focus": 0.0},
        reference="Patacchiola and Storkey, NeurIPS 2020, https://arxiv.org/abs/2006.05849",
        summary="a learned head tells views of one image from views of two",
    )  # fmt: skip
    register(
        "pixpro", f"{HERE}.pixpro:PixPro",
        options={"threshold": 0.7, "sharpness": 2.0, "stride": 8, "hidden": 128, "projection": 128},
        reference="Xie et al., CVPR 2021, https://arxiv.org/abs/2011.10043",
        summary="pixels, smoothed by pixels like them, predict the teacher's of the same place",
    )  # fmt: skip
