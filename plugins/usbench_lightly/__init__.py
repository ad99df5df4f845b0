"""Methods made of lightly's losses and heads."""

from usbench import hookimpl

PAIR = "usbench_lightly.pairs:Pair"
WIDE = "BarlowTwinsProjectionHead"  # three layers, as the redundancy-reducing methods have it


@hookimpl
def usbench_losses(register):
    _pairs(register)
    _several(register)
    _predicted(register)
    _clusters(register)
    _dense(register)


def _pairs(register):
    """Two views, a criterion and a projector."""
    register(
        "simclr", PAIR, criterion="lightly.loss:NTXentLoss", options={"temperature": 0.1, "projection": 128},
        reference="Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709",
        summary="contrast of two views against the rest of the batch",
    )  # fmt: skip
    register(
        "dcl", PAIR, criterion="lightly.loss:DCLLoss", options={"temperature": 0.1, "projection": 128},
        reference="Yeh et al., ECCV 2022, https://arxiv.org/abs/2110.06848",
        summary="simclr with the positive taken out of the denominator",
    )  # fmt: skip
    register(
        "dclw", PAIR, criterion="lightly.loss:DCLWLoss",
        options={"temperature": 0.1, "sigma": 0.5, "projection": 128},
        reference="Yeh et al., ECCV 2022, https://arxiv.org/abs/2110.06848",
        summary="dcl that weighs far positives more than near ones",
    )  # fmt: skip
    register(
        "macl", PAIR, criterion="lightly.loss:MACLLoss",
        options={"temperature": 0.1, "alpha": 0.5, "projection": 128},
        reference="Huang et al., ICML 2023, https://arxiv.org/abs/2207.07874",
        summary="simclr with a temperature that follows the alignment, and reweighted gradients",
    )  # fmt: skip
    register(
        "directclr", "usbench_lightly.pairs:DirectCLR", options={"temperature": 0.1, "share": 0.25},
        reference="Jing et al., ICLR 2022, https://arxiv.org/abs/2110.09348",
        summary="contrast without a projector, on a part of the encoder's features",
    )  # fmt: skip
    register(
        "barlow-twins", "usbench_lightly.pairs:BarlowTwins", criterion="lightly.loss:BarlowTwinsLoss", head=WIDE,
        options={"lambda_param": 0.005, "projection": 512},
        reference="Zbontar et al., ICML 2021, https://arxiv.org/abs/2103.03230",
        summary="cross-correlation of two views brought to the identity",
    )  # fmt: skip
    register(
        "vicreg", PAIR, criterion="lightly.loss:VICRegLoss", head="VICRegProjectionHead",
        options={"lambda_param": 25.0, "mu_param": 25.0, "nu_param": 1.0, "projection": 512},
        reference="Bardes et al., ICLR 2022, https://arxiv.org/abs/2105.04906",
        summary="invariance, variance and covariance; no negatives, no teacher",
    )  # fmt: skip
    register(
        "w-mse", "usbench_lightly.pairs:WMSE", options={"window": 64, "projection": 32, "hidden": 256},
        reference="Ermolov et al., ICML 2021, https://arxiv.org/abs/2007.06346",
        summary="distance of whitened embeddings; a batch holds at least the window of the whitening",
    )  # fmt: skip


def _several(register):
    """More than two views, a criterion and a projector."""
    register(
        "frossl", "usbench_lightly.several:Several", criterion="lightly.loss:FroSSLLoss", head=WIDE,
        options={"invariance_weight": 1.0, "crops": 4, "projection": 256},
        reference="Skean et al., ECCV 2024, https://arxiv.org/abs/2310.02903",
        summary="flat spectrum of each view's embeddings by their Frobenius norm, and invariance",
    )  # fmt: skip
    register(
        "emp-ssl", "usbench_lightly.several:Patches", criterion="usbench_lightly.several:CodingRate", head=WIDE,
        options={"tcr_eps": 0.2, "inv_coef": 200.0, "crops": 8, "projection": 128},
        reference="Tong et al., arXiv 2023, https://arxiv.org/abs/2304.03977",
        summary="many small crops: high coding rate, small angle to their mean",
    )  # fmt: skip
    register(
        "lejepa", "usbench_lightly.several:GlobalLocal", criterion="lightly.loss:LeJEPALoss",
        head="LeJEPAProjectionHead",
        options={"lambda_param": 0.05, "sigreg_num_vectors": 256, "local_views": 4, "projection": 64},
        reference="Balestriero & LeCun, arXiv 2025, https://arxiv.org/abs/2511.08544",
        summary="views near the mean of the global ones, embeddings isotropic Gaussian on random slices",
    )  # fmt: skip
    register(
        "visreg", "usbench_lightly.several:GlobalLocal", criterion="lightly.loss:VISRegLoss",
        head="LeJEPAProjectionHead",
        options={"lambda_param": 0.6, "num_slices": 256, "local_views": 4, "projection": 128},
        reference="Wu et al., arXiv 2026, https://arxiv.org/abs/2606.02572",
        summary="views near the mean of the global ones; centre, scale and sliced shape of a Gaussian",
    )  # fmt: skip


def _predicted(register):
    """A predictor, a momentum teacher, a stopped gradient or a queue."""
    register(
        "simsiam", "usbench_lightly.siamese:SimSiam", crops=2, options={"hidden": 512, "projection": 512},
        reference="Chen & He, CVPR 2021, https://arxiv.org/abs/2011.10566",
        summary="predicts the other view's projection, whose gradient is stopped; no teacher, no negatives",
    )  # fmt: skip
    register(
        "fastsiam", "usbench_lightly.siamese:SimSiam", options={"crops": 4, "hidden": 512, "projection": 512},
        reference="Pototzky et al., GCPR 2022, https://doi.org/10.1007/978-3-031-16788-1_4",
        summary="simsiam whose target is the mean of several views, for small batches",
    )  # fmt: skip
    register(
        "nnclr", "usbench_lightly.siamese:NNCLR",
        options={"temperature": 0.1, "queue": 1024, "hidden": 512, "projection": 128},
        reference="Dwibedi et al., ICCV 2021, https://arxiv.org/abs/2104.14548",
        summary="contrast whose positive is the nearest neighbour among past embeddings",
    )  # fmt: skip
    register(
        "byol", "usbench_lightly.teachers:BYOL", options={"hidden": 512, "projection": 128},
        reference="Grill et al., NeurIPS 2020, https://arxiv.org/abs/2006.07733",
        summary="predicts a slowly moving teacher's view; no negatives",
    )  # fmt: skip
    register(
        "moco", "usbench_lightly.teachers:MoCo", options={"temperature": 0.1, "queue": 4096, "projection": 128},
        reference="He et al., CVPR 2020, https://arxiv.org/abs/1911.05722",
        summary="contrast against a queue of a slowly moving teacher's embeddings",
    )  # fmt: skip
    register(
        "tico", "usbench_lightly.teachers:TiCo",
        options={"beta": 0.9, "rho": 8.0, "hidden": 512, "projection": 128},
        reference="Zhu et al., arXiv 2022, https://arxiv.org/abs/2206.10698",
        summary="agreement with a teacher, away from the covariance of past embeddings",
    )  # fmt: skip
    register(
        "mmcr", "usbench_lightly.teachers:MMCR", options={"lmda": 0.005, "hidden": 512, "projection": 128},
        reference="Yerxa et al., NeurIPS 2023, https://arxiv.org/abs/2303.03307",
        summary="manifold capacity: mean embeddings spread, the views of an image do not",
    )  # fmt: skip


def _clusters(register):
    """Prototypes, distributions or groups."""
    register(
        "swav", "usbench_lightly.clusters:SwAV",
        options={
            "prototypes": 128, "temperature": 0.1, "epsilon": 0.05, "queue": 512, "queue_start": 0.1, "freeze": 0.01,
            "local_views": 4, "hidden": 256, "projection": 128,
        },
        reference="Caron et al., NeurIPS 2020, https://arxiv.org/abs/2006.09882",
        summary="predicts another view's even assignment to prototypes",
    )  # fmt: skip
    register(
        "dino", "usbench_lightly.clusters:DINO",
        options={
            "outputs": 1024, "temperature": 0.1, "teacher_temperature": (0.04, 0.07), "centre_momentum": 0.9,
            "freeze": 0.01, "local_views": 4, "hidden": 512, "bottleneck": 128,
        },
        reference="Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294",
        summary="self-distillation: small crops predict a centred, sharpened teacher's distribution",
    )  # fmt: skip
    register(
        "smog", "usbench_lightly.clusters:SMoG",
        options={
            "groups": 128, "temperature": 0.1, "beta": 0.99, "bank": 1024, "reset": 0.1, "hidden": 512,
            "projection": 128,
        },
        reference="Pang et al., ECCV 2022, https://arxiv.org/abs/2207.06167",
        summary="contrast with groups that move together with the features",
    )  # fmt: skip


def _dense(register):
    """Positions or regions of maps beside whole images."""
    register(
        "densecl", "usbench_lightly.dense:DenseCL",
        options={
            "temperature": 0.2, "dense": 0.5, "queue": 4096, "hidden": 256, "projection": 128, "dense_stride": 16,
        },
        reference="Wang et al., CVPR 2021, https://arxiv.org/abs/2011.09157",
        summary="moco on images and on positions, matched by their features",
    )  # fmt: skip
    register(
        "vicregl", "usbench_lightly.dense:VICRegL",
        options={
            "lambda_param": 25.0, "mu_param": 25.0, "nu_param": 1.0, "alpha": 0.75, "matches": (20, 4),
            "projection": 256, "dense_projection": 128, "dense_stride": 16,
        },
        reference="Bardes et al., NeurIPS 2022, https://arxiv.org/abs/2210.01571",
        summary="vicreg on images and on positions, matched by place and by features",
    )  # fmt: skip
    for letter, what in (("s", "contrast of regions in both views"), ("b", "detcon-s with a predictor and a teacher")):
        register(
            f"detcon-{letter}", f"usbench_lightly.regions:DetCon{letter.upper()}",
            options={
                "temperature": 0.1, "segments": 8, "regions": 8, "hidden": 512, "projection": 128, "dense_stride": 8,
            },
            reference="Hénaff et al., ICCV 2021, https://arxiv.org/abs/2103.10957",
            summary=f"{what} (segments by k-means on intensity and place)",
        )  # fmt: skip
