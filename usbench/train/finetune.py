"""Fine-tuning: the same recipe for every row; the step is chosen on inner validation, never on a test set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from usbench.contracts import Labelled, Network, Protocol
from usbench.data.feed import Feed, order
from usbench.draws import generator, seed_globals
from usbench.train.loop import Compute, Schedule, Training, Watcher, adamw
from usbench.views import flip_rotate, normalise, resample

DEGREES = 15.0
CHOICES = 10  # how often in a training inner validation is looked at
EVALUATION_BATCH = 64


def training_batch(feed: Feed, rows: np.ndarray, matrix: np.ndarray, size: int) -> Labelled:
    """Images and masks through one affine each."""
    assert feed.mask is not None
    planes = torch.cat([feed.take(feed.images, rows), feed.take(feed.mask, rows)], 1).float().mul_(1 / 255)
    theta = torch.from_numpy(matrix[:, :2].copy()).to(feed.device, non_blocking=True)
    sampled = resample(planes, theta, size)
    label = feed.label[torch.from_numpy(rows).to(feed.label.device)]
    return Labelled(normalise(sampled[:, :1]), sampled[:, 1:], label)


def plain_images(feed: Feed, rows: np.ndarray, size: int) -> Tensor:
    """Images as they are, resampled to the run's size and normalised: what every evaluation uses."""
    theta = torch.eye(2, 3, device=feed.device).expand(len(rows), 2, 3)
    return normalise(resample(feed.take(feed.images, rows).float().mul_(1 / 255), theta, size))


def plain_batch(feed: Feed, rows: np.ndarray, size: int) -> Labelled:
    """Images and masks as they are."""
    return training_batch(feed, rows, np.tile(np.eye(3, dtype=np.float32), (len(rows), 1, 1)), size)


def inner_score(model: nn.Module, protocol: Protocol, feed: Feed, size: int, compute: Compute) -> float:
    """The mean inner score over the images of a feed."""
    model.eval()
    scores: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, feed.count, EVALUATION_BATCH):
            batch = plain_batch(feed, np.arange(start, min(start + EVALUATION_BATCH, feed.count)), size)
            with compute.autocast():
                output = model(batch.images)
            scores.append(protocol.inner(output.float(), batch))
    model.train()
    return float(torch.cat(scores).nanmean())


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
) -> dict[str, Any]:
    """Fine-tune in `folder`, going on where it stopped; returns what it cost and how the step was chosen."""
    model = compute.place(protocol.adapt(network)).train()
    optimizer = adamw(schedule, [(network.encoder, schedule.encoder_factor), (model, 1.0)])
    training = Training(title, folder, schedule, {"model": model}, optimizer)

    def do(step: int) -> dict[str, Tensor]:
        seed_globals(seed, "finetune", step)
        rows = order(feed.count, schedule.batch, step, seed, "finetune")
        matrix = flip_rotate(generator(seed, "finetune", "views", step), len(rows), DEGREES)
        batch = training_batch(feed, rows, matrix, size)
        with compute.autocast():
            output = model(batch.images)
        loss = protocol.objective(output.float(), batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    def choose(done: int) -> None:
        every = max(1, schedule.steps // CHOICES)
        if inner is None or (done % every and done != schedule.steps):
            return
        score = inner_score(model, protocol, inner, size, compute)
        training.facts["last"] = score
        if not math.isnan(score) and score > training.facts.get("best", -math.inf):
            training.facts |= {"best": score, "best_step": done}
            training.kept = {name: value.detach().clone() for name, value in model.state_dict().items()}

    training.run(do, watcher, choose)
    facts = training.facts
    weights = training.kept or model.state_dict()
    cost = training.finish(weights)
    images = schedule.steps * schedule.batch
    return {
        **cost, "steps": schedule.steps, "images_seen": images, "pixels_seen": images * size**2,
        "selection": "inner" if training.kept else "last", "chosen_step": facts.get("best_step", schedule.steps),
        "dice_inner": facts.get("best", math.nan), "dice_inner_last": facts.get("last", math.nan),
    }  # fmt: skip
