"""Fine-tuning: the same recipe for every row; the step is chosen on inner validation, never on a test set.

A protocol may freeze parts of the network, or fit frozen features once instead of taking steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from usbench.contracts import Labelled, Network, Protocol, pooled
from usbench.data.feed import Feed, order
from usbench.draws import generator, seed_globals
from usbench.train import checkpoint
from usbench.train.loop import Compute, Schedule, Training, Watcher, adamw, peak_mib
from usbench.train.sparing import PLAIN, Sparing, check_parts, in_parts, recomputing
from usbench.views import flip_rotate, normalise, resample, to_device

DEGREES = 15.0
CHOICES = 10  # how often in a training inner validation is looked at
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
    frozen = [part for part in model.modules() if _is_frozen(part)]
    for part in frozen:
        part.eval()
    return bool(frozen)


def _is_frozen(module: nn.Module) -> bool:
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


def moving(model: nn.Module) -> dict[str, Tensor]:
    """The state that training changes: all but that of frozen modules and parameters."""
    frozen = {id(t) for part in model.modules() if _is_frozen(part) for t in part.state_dict(keep_vars=True).values()}
    state = model.state_dict(keep_vars=True)
    fixed = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: value for name, value in state.items() if id(value) not in frozen and name not in fixed}


@dataclass(frozen=True)
class Steps:
    """The steps of a fine-tune: each seeds, makes its batch and learns from it."""

    model: nn.Module
    protocol: Protocol
    feed: Feed
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    compute: Compute
    seed: int
    size: int
    parts: int = 1  # that the gradient of a batch is taken in

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Do one; returns the loss."""
        seed_globals(self.seed, "finetune", step)
        return self.learn(self.batch_of(step))

    def batch_of(self, step: int) -> Labelled:
        """The batch of a step: the same for whoever asks, and however often."""
        rows = order(self.feed.count, self.schedule.batch, step, self.seed, "finetune")
        rng = generator(self.seed, "finetune", "views", step)
        matrix = self.protocol.views(rng, len(rows))
        if matrix is None:
            matrix = flip_rotate(rng, len(rows), DEGREES)
        batch = training_batch(self.feed, rows, matrix, self.size)
        if self.feed.streams and step + 1 < self.schedule.steps:
            following = order(self.feed.count, self.schedule.batch, step + 1, self.seed, "finetune")
            self.feed.ahead(following, self.feed.images, self.feed.mask)
        return batch

    def learn(self, batch: Labelled) -> dict[str, Tensor]:
        """The part that comes after the batch is made."""
        if self.parts > 1:
            self.optimizer.zero_grad(set_to_none=True)
            loss = in_parts(self.model, self.protocol, batch, self.parts, self.compute)
        else:
            with self.compute.autocast():
                output = self.model(batch.images)
            loss = self.protocol.objective(output.float(), batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}


def finetune(
    *,
    title: str,
    folder: Path,
    network: Network,
    protocol: Protocol,
    feed: Feed,
    inner: Feed | None,
    schedule: Schedule,
    compute: Compute,
    seed: int,
    size: int,
    watcher: Watcher,
    look: Callable[[nn.Module, int], None] | None = None,
    sparing: Sparing = PLAIN,
) -> dict[str, Any]:
    """Fine-tune in `folder`, going on where it stopped; returns what it cost and how the step was chosen.

    `look` is given the model whenever inner validation is looked at, and the step. It has no say in the choice.
    """
    seed_globals(seed, "finetune", "protocol")  # a new head is the same for every row of a seed
    model = compute.place(protocol.adapt(network))
    if train_mode(model):
        clean_statistics(network, feed, compute)
        train_mode(model)
    optimizer = adamw(schedule, [(network.encoder, schedule.encoder_factor), (model, 1.0)])
    training = Training(title, folder, schedule, {"model": model}, optimizer)

    if sparing.parts > 1:
        check_parts(model)
    steps = Steps(model, protocol, feed, optimizer, schedule, compute, seed, size, sparing.parts)

    def choose(done: int) -> None:
        every = max(1, schedule.steps // CHOICES)
        if done % every and done != schedule.steps:
            return
        if look is not None:
            look(model, done)
            train_mode(model)
        if inner is None:
            return
        score = inner_score(model, protocol, inner, size, compute)
        training.facts["last"] = score
        if not math.isnan(score) and score > training.facts.get("best", -math.inf):
            training.facts |= {"best": score, "best_step": done}
            training.kept = {name: value.detach().clone() for name, value in model.state_dict().items()}

    with recomputing(network) if sparing.recompute else nullcontext():
        training.run(steps, watcher, choose)
    facts = training.facts
    weights = training.kept or model.state_dict()
    cost = training.finish(weights)
    images = schedule.steps * schedule.batch
    return {
        **cost, "steps": schedule.steps, "images_seen": images, "pixels_seen": images * size**2,
        "selection": "inner" if training.kept else "last", "chosen_step": facts.get("best_step", schedule.steps),
        f"{protocol.primary}_inner": facts.get("best", math.nan),
        f"{protocol.primary}_inner_last": facts.get("last", math.nan),
    }  # fmt: skip


def fit(
    *,
    folder: Path,
    network: Network,
    protocol: Protocol,
    feed: Feed,
    inner: Feed | None,
    compute: Compute,
    seed: int,
    size: int,
) -> dict[str, Any]:
    """Fit the protocol once to pooled features of the network as it is; returns what it cost. Nothing is chosen."""
    began = time.perf_counter()
    seed_globals(seed, "finetune", "protocol")
    model = compute.place(protocol.adapt(network)).requires_grad_(False)
    clean_statistics(network, feed, compute)
    features = torch.cat([pooled([level]) for level in deepest_maps(network.encoder, feed, compute)])
    loss = protocol.fit(model, features.clone(), feed.label)
    model.to(compute.device)
    score = inner_score(model, protocol, inner, size, compute) if inner is not None else math.nan
    checkpoint.write(folder / "weights.safetensors", checkpoint.tensors_of(model))
    (folder / "curve.csv").write_text(f"step,lr,loss\n0,0,{loss:.6g}\n", "utf-8")  # as of every training
    return {
        "steps": 0, "images_seen": 0, "pixels_seen": 0, "selection": "none", "chosen_step": 0,
        "device_seconds": round(time.perf_counter() - began, 2), "peak_mib": peak_mib(network),
        f"{protocol.primary}_inner": score, f"{protocol.primary}_inner_last": score,
    }  # fmt: skip
