"""Images through a network: as they are or augmented, in training mode or not, with statistics of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from usbench.contracts import Labelled, Network, Protocol
from usbench.data.feed import Feed
from usbench.train.loop import Compute
from usbench.views import normalise, resample, to_device

EVALUATION_BATCH = 64


def training_batch(feed: Feed, rows: np.ndarray, matrix: np.ndarray, size: int) -> Labelled:
    """Images, and masks where the feed has them, through one affine each."""
    planes = [feed.take(plane, rows) for plane in (feed.images, feed.mask) if plane is not None]
    pixels = torch.cat(planes, 1).float().mul_(1 / 255)
    sampled = resample(pixels, to_device(matrix[:, :2], feed.device), size)
    label = feed.label[to_device(rows, feed.label.device)]
    return Labelled(normalise(sampled[:, :1]), sampled[:, 1:], label)


def plain_images(feed: Feed, rows: np.ndarray, size: int) -> Tensor:
    """Images as they are, resampled to the run's size and normalised: what every evaluation uses."""
    return as_seen(feed.take(feed.images, rows), size)


def as_seen(images: Tensor, size: int) -> Tensor:
    """(N, 1, side, side) uint8 → what the network is given of them."""
    theta = torch.eye(2, 3, device=images.device).expand(len(images), 2, 3)
    return normalise(resample(images.float().mul_(1 / 255), theta, size))


def plain_batch(feed: Feed, rows: np.ndarray, size: int) -> Labelled:
    """Images and masks as they are."""
    return training_batch(feed, rows, np.tile(np.eye(3, dtype=np.float32), (len(rows), 1, 1)), size)


def inner_score(model: nn.Module, protocol: Protocol, feed: Feed, size: int, compute: Compute) -> float:
    """The mean inner score over the images of a feed, or over the parts that they are of."""
    model.eval()
    scores: list[Tensor] = []
    with torch.inference_mode():
        for rows in feed.in_turn(np.arange(feed.count), EVALUATION_BATCH, feed.images, feed.mask):
            batch = plain_batch(feed, rows, size)
            with compute.autocast():
                output = model(batch.images)
            scores.append(protocol.inner(output.float(), batch))
    train_mode(model)
    return mean_score(torch.cat(scores))


def mean_score(scores: Tensor) -> float:
    """The mean over images (N,), or over the parts (N, parts) that they are of."""
    return float(scores.nanmean() if scores.ndim == 1 else scores.nanmean(0).nanmean())


def train_mode(model: nn.Module) -> bool:
    """Training mode, but for modules of which nothing is trained; returns whether there are any."""
    model.train()
    frozen = [part for part in model.modules() if is_frozen(part)]
    for part in frozen:
        part.eval()
    return bool(frozen)


def is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def deepest_maps(encoder: nn.Module, feed: Feed, compute: Compute) -> Iterator[Tensor]:
    """The deepest map of every image as it is, a batch at a time, with the modules in whatever mode they are."""
    with torch.inference_mode():
        for rows in feed.in_turn(np.arange(feed.count), EVALUATION_BATCH, feed.images):
            with compute.autocast():
                maps = encoder(plain_images(feed, rows, feed.size))
            yield maps[-1].float()


def clean_statistics(network: Network, feed: Feed, compute: Compute) -> None:
    """Replace BatchNorm's running statistics by those of clean images, and leave the network in evaluation mode.

    Those of pretraining are of augmented views, and those of a network that was never trained are of nothing.
    """
    norms = [module for module in network.encoder.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    seen = 0
    batch = math.ceil(feed.count / math.ceil(feed.count / EVALUATION_BATCH))  # a short last one knows too few
    for rows in feed.in_turn(np.arange(feed.count), batch, feed.images):
        seen += len(rows)
        for norm in norms:
            norm.momentum = len(rows) / seen  # an average over images
        with torch.inference_mode(), compute.autocast():
            network.encoder(plain_images(feed, rows, feed.size))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
