"""U-Nets on any hierarchical encoder of timm or segmentation-models-pytorch."""

from usbench import hookimpl

UNET = "usbench_unet.unet:unet"
PAPER = "Ronneberger et al., MICCAI 2015, https://arxiv.org/abs/1505.04597"


@hookimpl
def usbench_backbones(register):
    register(
        "unet-tiny", UNET, reference=PAPER, encoder="tu-test_resnet", width=48,
        summary="U-Net with a 0.4 M residual encoder (timm test_resnet) and a narrow decoder, for CPUs and tests",
    )  # fmt: skip
    for depth in (18, 34, 50):
        register(
            f"unet-resnet{depth}", UNET, reference=PAPER, encoder=f"resnet{depth}", options={"width": 256},
            summary=f"U-Net with a ResNet-{depth} encoder; width is that of the deepest decoder block",
        )  # fmt: skip
    register(
        "unet", UNET, reference=PAPER, options={"encoder": "resnet18", "width": 256},
        summary="U-Net with any hierarchical encoder: unet:NAME of timm or segmentation-models-pytorch",
    )  # fmt: skip
