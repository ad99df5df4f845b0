"""Vision transformers, the methods that want their tokens, and masked image modelling for any network."""

from usbench import hookimpl

VIT = "usbench_tokens.vit:vit"


@hookimpl
def usbench_backbones(register):
    for name, dim in (("tiny", 192), ("small", 384)):
        register(
            f"vit-{name}", VIT, timm_name=f"vit_{name}_patch16_224", gives=("tokens",),
            options={"patch": 8, "dim": dim, "depth": 12, "width": 64},
            reference="Dosovitskiy et al., ICLR 2021, https://arxiv.org/abs/2010.11929",
            summary=f"ViT-{name.capitalize()} with a small dense decoder; patch=16 takes the published weights",
        )  # fmt: skip


@hookimpl
def usbench_losses(register):
    def on_tokens(name, factory, options, reference, summary, **fixed):
        register(
            name, f"usbench_tokens.{factory}", needs=("tokens",), options=options, reference=reference,
            summary=summary, **fixed,
        )  # fmt: skip

    on_tokens(
        "mae", "restore:MAE", {"mask_ratio": 0.75, "width": 128, "depth": 2},
        "He et al., CVPR 2022, https://arxiv.org/abs/2111.06377",
        "three quarters of the patches are dropped and their pixels restored by a small decoder",
    )  # fmt: skip
    on_tokens(
        "simmim", "restore:SimMIM", {"mask_ratio": 0.6, "block": 2},
        "Xie et al., CVPR 2022, https://arxiv.org/abs/2111.09886",
        "masked patches become a learned token and their pixels are restored by one linear layer",
    )  # fmt: skip
    on_tokens(
        "ijepa", "restore:IJEPA", {"targets": 4, "width": 96, "depth": 3},
        "Assran et al., CVPR 2023, https://arxiv.org/abs/2301.08243",
        "a teacher's features of hidden blocks are predicted from a context block",
    )  # fmt: skip
    heads = {"hidden": 256, "bottleneck": 64, "prototypes": 1024}
    on_tokens(
        "ibot", "distil:Distillation", heads, "Zhou et al., ICLR 2022, https://arxiv.org/abs/2111.07832",
        "self-distillation between views and on masked patches, with one head for both", shared=True,
    )  # fmt: skip
    on_tokens(
        "dinov2", "distil:Distillation", {**heads, "koleo": 0.1},
        "Oquab et al., TMLR 2024, https://arxiv.org/abs/2304.07193",
        "DINO between views, iBOT on masked patches, KoLeo to spread; centred by a running mean", shared=False,
    )  # fmt: skip
    siamese = {"mask_ratio": 0.15, "prototypes": 256, "hidden": 256, "projection": 128, "temperature": 0.1}
    on_tokens(
        "msn", "siamese:MSN", siamese, "Assran et al., ECCV 2022, https://arxiv.org/abs/2204.07141",
        "a view without some of its patches is assigned to a whole view's prototypes",
    )  # fmt: skip
    on_tokens(
        "pmsn", "siamese:MSN", {**siamese, "power_law": 0.25},
        "Assran et al., ICLR 2023, https://arxiv.org/abs/2210.07277",
        "MSN with prototypes used by a power law rather than equally often",
    )  # fmt: skip
    anywhere = {"mask_ratio": 0.6, "grid": 8, "width": 32, "decoder": False}
    register(
        "simmim-cnn", "usbench_tokens.masked:SimMIMCNN", options=anywhere,
        reference="Xie et al., CVPR 2022, https://arxiv.org/abs/2111.09886",
        summary="masked squares of the sector are restored from the maps; decoder=true trains the decoder too",
    )  # fmt: skip
    register(
        "usfm", "usbench_tokens.masked:USFM", options={"band": 0.2, "frequency_weight": 0.5, **anywhere},
        reference="Jiao et al., Medical Image Analysis 2024, https://arxiv.org/abs/2401.00153", reconstruction=True,
        summary="squares and a ring of the spectrum are masked, the image restored (our reconstruction of the details)",
    )  # fmt: skip
