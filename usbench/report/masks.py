"""The masks that a test predicted, read from its folder as they are asked for. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from usbench.errors import UsbenchError
from usbench.evaluate.segmentation import unpack_masks

MASKS = "masks.safetensors"


class Masks:
    """As many masks as the test had images, in their order; each of `size` rows and columns."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / MASKS
        try:
            with safe_open(self.path, framework="numpy") as file:
                facts = json.loads((file.metadata() or {}).get("usbench", "{}"))
                self.size = int(facts["height"]), int(facts["width"])
                self.count, columns = file.get_slice("masks").get_shape()
            if columns != -(-self.size[0] * self.size[1] // 8):
                raise ValueError(f"rows of {columns} bytes are no masks of {self.size[0]} × {self.size[1]}")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsbenchError(f"{self.path} holds no masks ({error}): delete the folder, run again.") from error

    def __len__(self) -> int:
        return self.count

    def of(self, places: Sequence[int]) -> list[np.ndarray]:
        """Those of some images."""
        with safe_open(self.path, framework="numpy") as file:
            bits = file.get_slice("masks")
            return [unpack_masks(np.asarray(bits[place : place + 1]), self.size)[0] for place in places]

    def all(self) -> np.ndarray:
        """(N, H, W) every one."""
        with safe_open(self.path, framework="numpy") as file:
            return unpack_masks(file.get_tensor("masks"), self.size)
