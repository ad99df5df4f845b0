"""Segmentation with the encoder as pretraining left it: only the decoder learns."""

from usbench import hookimpl


@hookimpl
def usbench_protocols(register):
    register(
        "segment-frozen", "usbench_frozen.protocol:SegmentFrozen", needs=("mask",),
        summary="as segment, with the encoder frozen: only the decoder learns",
        reference="Maier-Hein et al., Nature Methods 2024, https://arxiv.org/abs/2206.01653",
    )  # fmt: skip
