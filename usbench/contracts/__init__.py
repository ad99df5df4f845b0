"""The contracts between the harness and the plugins: loss, augmentation, backbone, protocol. No training code."""

from usbench.contracts.batch import Augmentation, Batch, Clip, Image, Video
from usbench.contracts.loss import Loss, named
from usbench.contracts.network import Head, Levels, Network, Out, pooled
from usbench.contracts.protocol import Labelled, Protocol

__all__ = [
    "Augmentation",
    "Batch",
    "Clip",
    "Head",
    "Image",
    "Labelled",
    "Levels",
    "Loss",
    "Network",
    "Out",
    "Protocol",
    "Video",
    "named",
    "pooled",
]
