"""A trained network on whole images: prepared as for evaluation, and masks brought back to each image's own size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor
from torch.nn import functional

from usbench.data.packing import Box, letterbox, place
from usbench.data.planes import shrink
from usbench.data.sector import find_sector
from usbench.errors import UsbenchError
from usbench.evaluate.testing import predicted_of
from usbench.share.network import Loaded
from usbench.train.loop import Compute
from usbench.train.passes import as_seen


@dataclass(frozen=True)
class Prepared:
    """An image as the network wants it, and what leads back to its own size."""

    grey: np.ndarray  # (H, W) uint8, as it is
    small: Tensor  # (1, 1, side, side) uint8
    sector: np.ndarray  # (canvas, canvas) bool
    box: Box


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image."""

    canvas: np.ndarray  # bool, the mask at the size that is scored
    mask: np.ndarray  # (H, W) bool, at the image's own size
    probability: float  # mean inside the mask; NaN where there is none


class Segmenter:
    """Makes masks. `threshold` is the probability from which a pixel is a lesion."""

    def __init__(self, loaded: Loaded, compute: Compute, threshold: float | None = None) -> None:
        self.config, self.protocol, self.compute = loaded.config, loaded.protocol, compute
        if not self.protocol.masks:
            raise UsbenchError(f"protocol '{self.config.protocol.name}' makes no masks: name a segmentation run.")
        threshold = self.config.threshold if threshold is None else threshold
        if not isinstance(threshold, int | float) or not 0 < threshold < 1:
            raise UsbenchError(f"--threshold {threshold}: a probability between 0 and 1 is wanted.")
        self.shift = math.log(threshold / (1 - threshold))
        self.model = compute.place(loaded.model).eval()

    def prepare(self, grey: np.ndarray) -> Prepared:
        """What a pack and a feed make of an image."""
        size = self.config.canvas
        box = letterbox(grey.shape[0], grey.shape[1], size)
        sector = find_sector(grey) if self.config.sector == "found" else np.ones(grey.shape, np.bool_)
        small = shrink(place(grey, box, size)[None], self.config.side)
        return Prepared(grey, small, place(sector, box, size), box)

    def __call__(self, images: Sequence[Prepared]) -> list[Prediction]:
        """The masks of a batch."""
        size = self.config.canvas
        with torch.inference_mode():
            pixels = torch.cat([image.small for image in images]).to(self.compute.device)
            with self.compute.autocast():
                output = self.model(as_seen(pixels, self.config.size))
            shifted = output.float() - self.shift if self.shift else output
            masks = predicted_of(self.protocol, shifted, size)
            full = functional.interpolate(output.float(), size=(size, size), mode="bilinear", align_corners=False)
            likely = full[:, 0].sigmoid().cpu().numpy()
        return [self._own(*each) for each in zip(images, masks, likely, strict=True)]

    @staticmethod
    def _own(image: Prepared, mask: np.ndarray, likely: np.ndarray) -> Prediction:
        """Without padding and what lies outside the sector, at the image's own size."""
        canvas, box = mask & image.sector, image.box
        inside = canvas[box.top : box.top + box.height, box.left : box.left + box.width]
        probability = float(likely[canvas].mean()) if canvas.any() else math.nan
        if inside.shape != image.grey.shape:
            grown = PILImage.fromarray(inside.astype(np.uint8) * 255)
            inside = np.asarray(grown.resize(image.grey.shape[::-1], PILImage.Resampling.BILINEAR)) >= 128
        return Prediction(canvas, inside, probability)
