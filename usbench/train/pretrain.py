"""Pretraining: a loss, views and a feed, step by step."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from usbench.contracts import Augmentation, Batch, Loss, Network
from usbench.data.feed import Batches, Feed
from usbench.draws import seed_globals
from usbench.errors import Refused, UsbenchError
from usbench.hooks import Entry
from usbench.train.held import check_loss
from usbench.train.loop import Compute, Training, Watcher, adamw
from usbench.train.ranks import Ranks
from usbench.train.schedule import Schedule
from usbench.train.sparing import PLAIN, Sparing, recomputing
from usbench.views import Views


@dataclass(frozen=True)
class Part:
    """A plugin chosen with its resolved options."""

    entry: Entry
    options: dict[str, Any]

    def build(self, *args: Any) -> Any:
        """Call the plugin's factory."""
        return self.entry.build(*args, **self.options)


def build_views(steps: tuple[Part, ...], size: int, counts: tuple[int, int]) -> Views:
    """The augmentations, composed; a recipe's factory gives several steps."""
    built: list[Augmentation] = []
    for part in steps:
        made = part.build()
        for step in made if isinstance(made, list) else [made]:
            if not isinstance(step, Augmentation):
                raise Refused(f"augmentation '{part.entry.name}' built a {type(step).__name__}, no Augmentation.")
            built.append(step)
    return Views(built, size, counts)


def _shown(feed: Feed, part: Part) -> bool:
    """Whether a loss that learns from labels was shown any: images of other sets may have none."""
    return bool((feed.label >= 0).any() or ("tag" in part.entry.needs and (feed.tag >= 0).any()))


def build_loss(part: Part, network: Network, schedule: Schedule, compute: Compute, seed: int) -> Loss:
    """The loss with its heads, in training mode, on the device; what it does not train is frozen."""
    seed_globals(seed, "loss")
    loss = part.build(network)
    if not isinstance(loss, Loss):
        raise Refused(f"loss '{part.entry.name}' built a {type(loss).__name__}: it must build a usbench.Loss.")
    check_loss(loss, part.entry.name)
    if schedule.batch // len(loss.item.roles) < loss.min_batch:
        raise Refused(
            f"loss '{part.entry.name}' needs {loss.min_batch} items a batch and {schedule.batch} images give "
            f"{schedule.batch // len(loss.item.roles)}: raise pretrain.batch."
        )
    if loss.pretrain_labels != "none" and not part.entry.learns_labels and "tag" not in part.entry.needs:
        raise Refused(
            f"loss '{part.entry.name}' learns from labels (pretrain_labels is '{loss.pretrain_labels}') and was not "
            'registered as one that does: add uses=("label",) to its register.'
        )
    if loss.transfer == "encoder":
        network.decoder.requires_grad_(False)
        network.head.requires_grad_(False)
    loss.autocast = compute.autocast
    compute.place(loss)
    return loss.train()


@dataclass(frozen=True)
class Steps:
    """The steps of a pretraining: each seeds, makes its batch, learns from it and moves the teacher."""

    loss: Loss
    batches: Batches
    optimizer: torch.optim.Optimizer

    def __call__(self, step: int) -> dict[str, torch.Tensor]:
        """Do one; returns the named parts of the loss."""
        seed_globals(self.batches.seed, "pretrain", step)
        return self.learn(self.batches(step))

    def learn(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The part that comes after the batch is made."""
        parts = self.loss.step(batch, self.optimizer)
        self.loss.update_teacher(batch.progress)
        return parts


def pretrain(
    *,
    title: str,
    folder: Path,
    part: Part,
    steps: tuple[Part, ...],
    network: Network,
    feed_of: Any,
    schedule: Schedule,
    compute: Compute,
    seed: int,
    size: int,
    watcher: Watcher,
    ranks: Ranks | None = None,
    sparing: Sparing = PLAIN,
) -> dict[str, Any]:
    """Pretrain the network in `folder`, going on where it stopped; returns what it cost.

    With `ranks` this process is one of several that do it together; the first of them writes.

    `feed_of(sectors)` makes the feed, since whether sectors are wanted is known only from the loss and the views.
    """
    loss = build_loss(part, network, schedule, compute, seed)
    if ranks is not None and not loss.distributed:
        raise UsbenchError(f"loss '{part.entry.name}' cannot be trained on several devices together: use --devices 1.")
    views = build_views(steps, size, loss.views)
    views.wants_sector |= loss.wants_sector
    feed: Feed = feed_of(views.wants_sector)
    batches = Batches(feed, views, loss.item, batch=schedule.batch, total=schedule.steps, seed=seed)
    if batches.items < 2 <= loss.min_batch:
        raise UsbenchError(
            f"loss '{part.entry.name}' needs two items or more, and the pretraining data hold one: choose other data."
        )
    optimizer = adamw(schedule, [(loss, 1.0)])
    training = Training(title, folder, schedule, {"loss": loss}, optimizer, writes=ranks is None or ranks.rank == 0)

    with contextlib.ExitStack() as stack:
        if sparing.recompute:
            stack.enter_context(recomputing(network, ranks))
        if ranks is not None:
            stack.enter_context(ranks.sharing(loss))
        training.run(Steps(loss, batches, optimizer), watcher)
    kept = network.encoder if loss.transfer == "encoder" else network
    prefix = "encoder." if loss.transfer == "encoder" else ""
    cost = training.finish({f"{prefix}{name}": value for name, value in kept.state_dict().items()})
    pixels = loss.views[0] * views.size**2 + loss.views[1] * views.local_size**2
    roles = len(loss.item.roles)
    images = schedule.steps * (schedule.batch // roles) * roles
    return {
        **cost, "device_seconds": round(cost["device_seconds"] * (ranks.count if ranks is not None else 1), 2),
        "transfer": loss.transfer, "pretrain_labels": loss.pretrain_labels if _shown(feed, part) else "none",
        "steps": schedule.steps, "images_seen": images, "pixels_seen": images * pixels,
    }  # fmt: skip
