"""What is measured: a pretraining and a fine-tune, put together as a run puts them together."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from usbench.bench.setting import Setting
from usbench.contracts import Loss, Network
from usbench.data.feed import Batches, Feed
from usbench.data.home import find_pack, options_of
from usbench.data.pack import Pack
from usbench.data.splits import fold_split
from usbench.errors import UsbenchError
from usbench.hooks import Registry, registry
from usbench.spec import Choice
from usbench.train import finetune, pretrain
from usbench.train.loop import Compute, Training, adamw
from usbench.train.networks import build_network
from usbench.train.passes import train_mode
from usbench.train.schedule import Schedule
from usbench.views import Views

MANY = 10**6  # steps: more than any bench does
LEARNING_RATE = 1e-4


def part_of(known: Registry, kind: str, text: str) -> pretrain.Part:
    """A plugin by its text form."""
    choice = Choice.parse(text)
    entry = known.get(kind, choice.name)
    return pretrain.Part(entry, options_of(entry, choice))


def known_to(setting: Setting) -> Registry:
    """The installed plugins, and the loose ones of the command line."""
    known = registry()
    for folder in setting.folders:
        known.load_folder(Path(folder))
    return known


def pack_of(setting: Setting) -> Pack:
    """The images."""
    return find_pack(known_to(setting), setting.data, lambda *_: None)


def compute_of(setting: Setting, precision: str | None = None) -> Compute:
    """Where and how precisely."""
    return Compute(torch.device(setting.device), precision or setting.precision)


def network_of(setting: Setting, backbone: str, size: int, seed: int = 0) -> Network:
    """The network, with random weights."""
    part = part_of(known_to(setting), "backbone", backbone)
    return build_network(part.entry, part.options, size, seed)


def views_of(setting: Setting, aug: str, size: int, counts: tuple[int, int]) -> Views:
    """An augmentation by its text form."""
    known = known_to(setting)
    return pretrain.build_views(tuple(part_of(known, "augmentation", text) for text in aug.split("+")), size, counts)


class Silent:
    """A watcher that lets a training be."""

    stopping = False

    def step(self, done: int, total: int, loss: float, rate: float) -> None:
        """Nothing is said."""


@dataclass
class Subject:
    """A training that can be gone on with, some steps at a time."""

    training: Training
    steps: pretrain.Steps | finetune.Steps
    network: Network

    def go_on(self, steps: int) -> int:
        """So many steps of the true loop: learning rate, step, curve. Returns how many."""
        self.training.schedule = dataclasses.replace(self.training.schedule, steps=self.training.step + steps)
        self.training.run(self.steps, Silent())
        return steps

    def save_seconds(self) -> float:
        """How long writing a checkpoint takes."""
        began = time.perf_counter()
        self.training.save()
        return time.perf_counter() - began


def pretraining(
    setting: Setting, backbone: str, size: int, folder: Path, *, batch: int = 0, precision: str | None = None,
    whole: bool = False,
) -> Subject:  # fmt: skip
    """A pretraining whose state goes into the folder, on the training images or on the whole pack."""
    compute, known = compute_of(setting, precision), known_to(setting)
    schedule = Schedule(MANY, batch or setting.batch, LEARNING_RATE, 1e-4, 0.1)
    network = network_of(setting, backbone, size)
    loss: Loss = pretrain.build_loss(part_of(known, "loss", setting.loss), network, schedule, compute, 0)
    views = views_of(setting, setting.aug, size, loss.views)
    views.wants_sector |= loss.wants_sector
    feed = feed_of(setting, size, compute.device, sectors=views.wants_sector, whole=whole)
    batches = Batches(feed, views, loss.item, batch=schedule.batch, total=MANY, seed=0)
    optimizer = adamw(schedule, [(loss, 1.0)])
    training = Training("a pretraining", folder, schedule, {"loss": loss}, optimizer)
    return Subject(training, pretrain.Steps(loss, batches, optimizer), network)


def finetuning(
    setting: Setting, backbone: str, size: int, folder: Path, *, batch: int = 0, precision: str | None = None,
    seed: int = 0,
) -> Subject:  # fmt: skip
    """A fine-tune of a network with random weights, as the protocol for masks has it."""
    compute = compute_of(setting, precision)
    protocol = mask_protocol(known_to(setting))
    network = network_of(setting, backbone, size, seed)
    schedule = Schedule(MANY, batch or setting.tuned_batch, LEARNING_RATE, 1e-4, 0.1)
    model = compute.place(protocol.build().adapt(network))
    train_mode(model)
    feed = feed_of(setting, size, compute.device, masks=True)
    optimizer = adamw(schedule, [(network.encoder, 1.0), (model, 1.0)])
    training = Training("a fine-tune", folder, schedule, {"model": model}, optimizer)
    steps = finetune.Steps(model, protocol.build(), feed, optimizer, schedule, compute, seed, size)
    return Subject(training, steps, network)


def mask_protocol(known: Registry) -> pretrain.Part:
    """The first protocol that learns masks by steps."""
    for entry in known.entries("protocol"):
        if "mask" in entry.needs and not entry.frozen:
            return pretrain.Part(entry, dict(entry.options))
    raise UsbenchError("no protocol that learns masks is installed: a fine-tune cannot be measured.")


def pixels_of(feed: Feed) -> np.ndarray:
    """(N, side, side) the images as a feed holds them."""
    return feed.take(feed.images, np.arange(feed.count))[:, 0].cpu().numpy()


def feed_of(
    setting: Setting,
    size: int,
    device: torch.device,
    *,
    masks: bool = False,
    sectors: bool = False,
    whole: bool = False,
) -> Feed:
    """The training images of the set on the device, or all of them."""
    pack = pack_of(setting)
    rows = np.arange(pack.count) if whole else fold_split(pack, 0)[0]
    return Feed([(pack, rows)], size, device, masks=masks, sectors=sectors)
