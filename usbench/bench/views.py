"""`views`: feed and augmentation alone, ours against lightly, kornia and torchvision with the same recipe."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from usbench.bench import recipe
from usbench.bench.lines import Case, Line, against
from usbench.bench.setting import Setting
from usbench.bench.subject import feed_of, pixels_of, views_of
from usbench.bench.timing import Work, in_turns, synchronise
from usbench.contracts import Image
from usbench.data.feed import Batches, Feed, order

OURS, INSIDE = "ours", "ours, in the sector"
NOTES = {
    OURS: "the recipe of the others, for which all of an image counts: host draws, gather, crop with flip and rotation "
    "as one affine and one bilinear resample, brightness and contrast, blur",
    INSIDE: "as a run has it: the sector is resampled too, blur and contrast are those of what is inside, and what is "
    "outside is put back",
    "lightly": "SimCLRTransform on grey PIL images from memory, in a DataLoader with all cores as persistent workers: "
    "resized crop, flip, rotation, brightness and contrast, box-approximated blur",
    "kornia": "batched, each image with its own parameters: resized crop, flip, rotation, brightness, contrast, blur; "
    "brightness and contrast are applied each for itself",
    "torchvision": "transforms.v2 on the device, image by image since a batch would share its parameters: resized crop "
    "(antialiased), flip, rotation, brightness and contrast, blur",
    "torchvision, one draw": "the same on the whole batch: every image gets the same crop, flip and blur, so this is "
    "not the recipe but what it would cost at least",
}  # fmt: skip


def measure(setting: Setting) -> Iterator[Line]:
    """For each size: two views of a batch, in milliseconds."""
    for size in setting.sizes:
        yield from compare(setting, size)


def compare(setting: Setting, size: int) -> Iterator[Line]:
    """All of them on the same images."""
    device = torch.device(setting.device)
    sides: dict[str, Work] = {}
    for name in (OURS, INSIDE):
        views = views_of(setting, recipe.ours(setting.recipe, size), size, (2, 0))
        views.wants_sector &= name == INSIDE
        feed = feed_of(setting, size, device, sectors=views.wants_sector)
        batches = Batches(feed, views, Image(), batch=setting.batch, total=10**6, seed=0)
        sides[name] = _ours(batches, setting.steps)
    rounds = -(-setting.steps // setting.workers) * setting.workers  # so that no worker is idle at the end
    loader = recipe.lightly(setting, pixels_of(feed), size, rounds)

    def lightly() -> int:
        for made in loader:
            for view in made:
                view.to(device, non_blocking=True)
            synchronise(device)
        return rounds

    sides["lightly"] = lightly
    missing = ""
    try:
        sides["kornia"] = _on_device(feed, recipe.kornia(setting.recipe, size), setting)
    except ImportError as error:
        missing = f"not measured: {error} (pip install kornia)"
    vision = recipe.torchvision(setting.recipe, size)
    sides["torchvision"] = _on_device(feed, recipe.one_by_one(vision), setting)
    sides["torchvision, one draw"] = _on_device(feed, vision, setting)
    found = in_turns(sides, device, setting.turns)
    case = Case("views", size, batch=setting.batch, precision="float32")
    for name, samples in found.items():
        ratio = samples.over(found[OURS]) if name != OURS else None
        asked, met = against(setting, f"views, {name}", ratio.median if ratio else 1.0)
        yield Line(
            case, name, samples, ratio=ratio, ratio_of="times ours" if ratio else "", asked=asked, met=met,
            note=NOTES[name],
        )  # fmt: skip
    if missing:
        yield Line(case, "kornia", note=missing)


def _ours(batches: Batches, steps: int) -> Work:
    def work() -> int:
        for step in range(steps):
            batches(step)
        return steps

    return work


def _on_device(feed: Feed, transform: recipe.Transform, setting: Setting) -> Work:
    """Gather a batch of the feed and make two views of each image."""

    @torch.no_grad()
    def work() -> int:
        for step in range(setting.steps):
            images = feed.take(feed.images, order(feed.count, setting.batch, step, 0, "bench"))
            for _ in range(2):
                transform(images)
        return setting.steps

    return work
