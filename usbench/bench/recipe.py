"""One recipe of views in four libraries: resized crop, flip, rotation, brightness and contrast, blur.

Each makes two views of every image, each view with its own parameters, as normalised float32 on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from usbench.bench.setting import Setting
from usbench.views import DEVIATION, MEAN

Transform = Callable[[Tensor], Tensor]


def ours(recipe: dict[str, Any], size: int) -> str:
    """The recipe as an augmentation of the harness, whose blur is a share of the view's side."""
    sigma = [value / size for value in recipe["sigma"]]
    shown = {key: "/".join(map(str, value)) if isinstance(value, list) else value for key, value in recipe.items()}
    text = str(recipe["ours"]).format(**{**shown, "sigma": "/".join(f"{value:.6g}" for value in sigma)})
    return "".join(text.split())


class Pictures(Dataset):
    """Grey PIL images that lie in memory, already at the size that the harness resamples from: nothing is decoded."""

    def __init__(self, images: np.ndarray, transform: Callable[[Any], Any]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index]))


def lightly(setting: Setting, images: np.ndarray, size: int, batches: int) -> DataLoader:
    """lightly's transform on PIL images in a DataLoader with all cores as workers."""
    from lightly.transforms.simclr_transform import SimCLRTransform

    recipe = setting.recipe
    transform = SimCLRTransform(
        input_size=size, min_scale=recipe["scale"][0], hf_prob=recipe["flip"], rr_prob=1.0,
        rr_degrees=recipe["degrees"], cj_prob=recipe["jitter"], cj_strength=1.0, cj_bright=recipe["brightness"],
        cj_contrast=recipe["contrast"], cj_sat=0.0, cj_hue=0.0, random_gray_scale=0.0,
        gaussian_blur=recipe["blur"], sigmas=tuple(recipe["sigma"]),
        normalize={"mean": [MEAN], "std": [DEVIATION]},
    )  # fmt: skip
    pictures = Pictures(images, transform)
    return DataLoader(
        pictures, batch_size=setting.batch, num_workers=setting.workers, persistent_workers=True, drop_last=True,
        sampler=RandomSampler(pictures, replacement=True, num_samples=batches * setting.batch),
        pin_memory=setting.device == "cuda",
    )  # fmt: skip


def kornia(recipe: dict[str, Any], size: int) -> Transform:
    """kornia's batched augmentation; ImportError where it is not installed."""
    from kornia import augmentation as k

    sigma = recipe["sigma"]
    steps = nn.Sequential(
        k.RandomResizedCrop((size, size), scale=tuple(recipe["scale"]), ratio=tuple(recipe["ratio"]), p=1.0),
        k.RandomHorizontalFlip(p=recipe["flip"]),
        k.RandomRotation(recipe["degrees"], p=1.0),
        k.RandomBrightness((1 - recipe["brightness"], 1 + recipe["brightness"]), p=recipe["jitter"]),
        k.RandomContrast((1 - recipe["contrast"], 1 + recipe["contrast"]), p=recipe["jitter"]),
        k.RandomGaussianBlur((_kernel(sigma), _kernel(sigma)), tuple(sigma), p=recipe["blur"]),
    )
    return lambda images: steps(images.float().div(255)).sub(MEAN).div(DEVIATION)


def torchvision(recipe: dict[str, Any], size: int) -> Transform:
    """torchvision's transforms of one image or, with the same parameters for all of them, of a batch."""
    from torchvision.transforms import v2

    jitter = v2.ColorJitter(brightness=recipe["brightness"], contrast=recipe["contrast"])
    blur = v2.GaussianBlur(_kernel(recipe["sigma"]), tuple(recipe["sigma"]))
    return v2.Compose([
        v2.RandomResizedCrop(size, scale=tuple(recipe["scale"]), ratio=tuple(recipe["ratio"]), antialias=True),
        v2.RandomHorizontalFlip(recipe["flip"]),
        v2.RandomRotation(recipe["degrees"], interpolation=v2.InterpolationMode.BILINEAR),
        v2.RandomApply([jitter], recipe["jitter"]),
        v2.RandomApply([blur], recipe["blur"]),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([MEAN], [DEVIATION]),
    ])  # fmt: skip


def one_by_one(transform: Transform) -> Transform:
    """A transform of one image, over a batch: each image with its own parameters."""
    return lambda images: torch.stack([transform(image) for image in images])


def _kernel(sigma: list[float]) -> int:
    """Three deviations either way, as ours has."""
    return 2 * max(1, math.ceil(3 * sigma[1])) + 1
