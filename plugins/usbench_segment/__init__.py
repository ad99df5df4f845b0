"""The segmentation protocol: fine-tune the whole U-Net with Dice and cross-entropy, score each image's mask."""

from usbench import hookimpl


@hookimpl
def usbench_protocols(register):
    register(
        "segment", "usbench_segment.protocol:Segment", needs=("mask",),
        summary="fine-tunes the U-Net on the label fraction; Dice, IoU, HD95, ASSD, surface Dice an image",
        reference="Maier-Hein et al., Nature Methods 2024, https://arxiv.org/abs/2206.01653",
    )  # fmt: skip
