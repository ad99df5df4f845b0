"""`compiled`: what torch.compile gains: for all that follows the resample of the views, and for the networks."""

from __future__ import annotations

import itertools
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from usbench.bench import recipe
from usbench.bench.lines import Case, Line
from usbench.bench.setting import Setting
from usbench.bench.subject import Subject, feed_of, finetuning, pretraining, views_of
from usbench.bench.timing import Work, in_turns
from usbench.contracts import Image
from usbench.data.feed import Batches

PLAIN, COMPILED = "as it is", "compiled"
TRACED = "eager"  # the backend of torch.compile that traces and compiles nothing: for a quick look that all of it runs
AUGMENTATIONS = {"the recipe": "", "freq": "freq"}


def measure(setting: Setting) -> Iterator[Line]:
    """For each size the views, and for each network a step of both trainings."""
    for size in setting.sizes:
        for name, aug in AUGMENTATIONS.items():
            yield from views(setting, name, aug or recipe.ours(setting.recipe, size), size)
        for backbone in setting.backbones:
            for name, make in (("a pretraining step", pretraining), ("a fine-tune step", finetuning)):
                with TemporaryDirectory() as folder:
                    yield from training(setting, name, make, backbone, size, Path(folder))


def views(setting: Setting, name: str, aug: str, size: int) -> Iterator[Line]:
    """Feed and augmentation of the same batches."""
    sides: dict[str, Work] = {}
    for side in (PLAIN, COMPILED):
        made = views_of(setting, aug, size, (2, 0))
        feed = feed_of(setting, size, torch.device(setting.device), sectors=made.wants_sector)
        batches = Batches(feed, made, Image(), batch=setting.batch, total=10**6, seed=0)
        if side == COMPILED:
            made.change = torch.compile(made.change, backend=_backend(setting))  # type: ignore[method-assign]
        sides[side] = _going_on(batches, setting.steps)
    case = Case("compiled", size, batch=setting.batch, precision="float32")
    yield from _lines(setting, case, f"views of {name}", sides)


def training(
    setting: Setting, name: str, make: Callable[..., Subject], backbone: str, size: int, folder: Path
) -> Iterator[Line]:
    """A step as the true loop does it, the network's modules compiled."""
    sides: dict[str, Work] = {}
    for side in (PLAIN, COMPILED):
        (folder / side).mkdir()
        subject = make(setting, backbone, size, folder / side)
        if side == COMPILED:
            subject.network.encoder.compile(backend=_backend(setting))
            subject.network.decoder.compile(backend=_backend(setting))
        sides[side] = lambda subject=subject: subject.go_on(setting.steps)  # type: ignore[misc]
    batch = setting.batch if make is pretraining else setting.tuned_batch
    yield from _lines(setting, Case("compiled", size, backbone, batch, setting.precision), name, sides)


def _lines(setting: Setting, case: Case, what: str, sides: dict[str, Work]) -> Iterator[Line]:
    try:
        with _unwarned():
            began = {side: _first(work) for side, work in sides.items()}
            found = in_turns(sides, torch.device(setting.device), setting.turns)
    except RuntimeError as error:  # no C++ compiler, say
        yield Line(case, f"{what}, {COMPILED}", note=f"not measured: {' '.join(str(error).split())}")
        return
    yield Line(case, f"{what}, {PLAIN}", found[PLAIN], note=f"the first {began[PLAIN]}")
    yield Line(
        case, f"{what}, {COMPILED}", found[COMPILED], ratio=found[PLAIN].over(found[COMPILED]),
        ratio_of=f"{PLAIN} / {COMPILED}", note=f"the first {began[COMPILED]}",
    )  # fmt: skip


def _backend(setting: Setting) -> str:
    return TRACED if setting.quick else "inductor"


@contextmanager
def _unwarned() -> Iterator[None]:
    """The compiler speaks of what it leaves as it is, and of shapes that it gave up on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _going_on(batches: Batches, count: int) -> Work:
    """So many batches, and the next time those that follow: what compiles for shapes must meet new ones."""
    following = itertools.count()

    def work() -> int:
        for step in itertools.islice(following, count):
            batches(step)
        return count

    return work


def _first(work: Work) -> str:
    began = time.perf_counter()
    units = work()
    return f"{units} took {time.perf_counter() - began:.1f} s"
