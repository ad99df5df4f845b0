"""The segmentation protocol on a frozen encoder."""

from torch import nn
from usbench_segment.protocol import Segment

from usbench import Network


class SegmentFrozen(Segment):
    """The decoder and the head learn; the encoder stays as it is, with BatchNorm statistics of the clean images."""

    def adapt(self, network: Network) -> nn.Module:
        """The network, with nothing of its encoder trained."""
        network.encoder.requires_grad_(False)
        return network
