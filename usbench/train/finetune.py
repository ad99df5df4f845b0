"""Fine-tuning: the same recipe for every row; the step is chosen on inner validation, never on a test set.

A protocol may freeze parts of the network, or fit frozen features once instead of taking steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from usbench.contracts import Labelled, Network, Protocol, pooled
from usbench.data.feed import Feed, order
from usbench.draws import generator, seed_globals
from usbench.errors import RunFailed
from usbench.train import checkpoint
from usbench.train.loop import Compute, Training, Watcher, adamw
from usbench.train.memory import peak_mib
from usbench.train.passes import clean_statistics, deepest_maps, inner_score, train_mode, training_batch
from usbench.train.schedule import Schedule
from usbench.train.sparing import PLAIN, Sparing, check_parts, in_parts, recomputing
from usbench.views import flip_rotate

DEGREES = 15.0
CHOICES = 10  # how often in a training inner validation is looked at


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
            if not isinstance(loss, Tensor) or loss.ndim:
                said = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                raise RunFailed(f"the objective of the protocol is {said}, not a scalar tensor: return one.")
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
