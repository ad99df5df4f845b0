"""What any augmentation must keep, whoever wrote it. A check's docstring is the promise."""

from __future__ import annotations

import functools
import time

import numpy as np
import torch
from torch import Tensor

from usbench.conformance import promise, toy
from usbench.conformance.promise import Memory, generators_of, listed, require, says_what_it_is
from usbench.contracts import Augmentation
from usbench.data.feed import sector_boxes
from usbench.draws import generator, seed_globals
from usbench.train.pretrain import Part, build_views
from usbench.views import DEVIATION, MEAN, Views

SIZE, ODD, COUNT = 32, 33, 64
OTHER_GREY = 0.37  # of pixels outside the sector
COSTED, COST_SIZE = 16, 128


class Bench(promise.Bench):
    """The augmentation as views of a few scans."""

    @functools.cached_property
    def views(self) -> Views:
        return self.build()

    @functools.cached_property
    def steps(self) -> list[Augmentation]:
        return [step for step in self.views.steps if isinstance(step, Augmentation)]

    def build(self, size: int = SIZE, counts: tuple[int, int] = (2, 2)) -> Views:
        return build_views((Part(self.entry, dict(self.entry.options)),), size, counts)

    def of(self, images: Tensor, fan: Tensor, views: Views | None = None, seed: int = 0) -> list[Tensor]:
        """The views of some images, in [0, 1], whatever torch's and numpy's global generators are at."""
        views = views or self.views
        drawn = views.draw(generator("conformance", seed), sector_boxes(fan[:, 0].numpy()), toy.CPU)
        sector = fan.to(torch.uint8) if views.wants_sector else None
        return [view * DEVIATION + MEAN for view in views(images, sector, drawn)[0]]

    def drawn(self, step: Augmentation, count: int, *, local: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
        boxes = np.array([[-0.8, -0.9, 0.8, 0.9]], np.float32).repeat(count, 0)
        return step.draw(generator("conformance", seed), boxes, local=local)

    def applied(self, step: Augmentation, pixels: Tensor, inside: Tensor, seed: int = 0) -> Tensor:
        """One step alone on pixels in [0, 1]."""
        drawn = {
            name: torch.from_numpy(np.asarray(value, np.float32 if value.dtype == np.float64 else value.dtype))
            for name, value in self.drawn(step, len(pixels), seed=seed).items() if name != "affine"
        }  # fmt: skip
        return step(pixels, drawn, inside if self.views.wants_sector else None)


def makes_views(bench: Bench) -> str:
    """It builds an Augmentation, or a list of them, and makes global and local views of their sizes."""
    images, fan = toy.scans(4, 0)
    made = bench.of(images, fan)
    sizes = [bench.views.size] * 2 + [bench.views.local_size] * 2
    require([tuple(v.shape) for v in made] == [(4, 1, s, s) for s in sizes], f"views are {[v.shape for v in made]}")
    return "" if bench.steps else "it has no step"


def keeps_greys_in_range(bench: Bench) -> None:
    """Pixels stay finite, between black and white; an image all black or all white too."""
    images, fan = toy.scans(COUNT, 0)
    images[0], images[1] = 0, 255
    for place, view in enumerate(bench.of(images, fan)):
        require(torch.isfinite(view).all(), f"view {place} has pixels that are not finite")
        low, high = float(view.min()), float(view.max())
        require(low > -1e-5 and high < 1 + 1e-5, f"view {place} has greys from {low:.3f} to {high:.3f}, not in [0, 1]")


def keeps_shape_and_input(bench: Bench) -> None:
    """Each step keeps shape and type of the pixels, and does not write into what it is given."""
    pixels, inside = _pixels()
    for place, step in enumerate(bench.steps):
        before = pixels.clone()
        changed = bench.applied(step, pixels, inside)
        require(torch.equal(pixels, before), f"{_called(step, place)} writes into its input")
        same = changed.shape == pixels.shape and changed.dtype == pixels.dtype
        require(same, f"{_called(step, place)} makes {tuple(changed.shape)} {changed.dtype} of {tuple(pixels.shape)}")


def hangs_on_its_draws(bench: Bench) -> None:
    """Equal draws give equal views, and draws hang on the given generator alone: no randomness of its own."""
    private = list(generators_of([bench.views]))
    require(not private, f"{listed(private)} is a generator of its own: draw from the rng that draw is given")
    images, fan = toy.scans(8, 0)
    made, memory = [], Memory(bench.views, but=("views",))  # which the harness sets
    for seed, views in enumerate((bench.views, bench.views, bench.build())):
        seed_globals("conformance", seed)
        made.append(bench.of(images, fan, views))
    for name, other in (("another time", made[1]), ("built anew", made[2])):
        differ = [str(i) for i, (a, b) in enumerate(zip(made[0], other, strict=True)) if not torch.equal(a, b)]
        require(not differ, f"view {listed(differ)} comes out otherwise {name}, from the same draws")
    changed = memory.changed()
    require(not changed, f"{changed} and is in no checkpoint: let views hang on what draw returns alone")


def draws_for_each_sample(bench: Bench) -> str:
    """Each view of each image is changed by parameters of its own."""
    images, fan = toy.scans(2, 0)
    images, fan = images.repeat(COUNT // 2, 1, 1, 1), fan.repeat(COUNT // 2, 1, 1, 1)
    draws = [values for step in bench.steps for values in bench.drawn(step, COUNT).values()]
    short = [values.shape for values in draws if len(values) != COUNT]
    require(not short, f"a draw for {COUNT} views has the shape {short[:1]}")
    if not draws:
        return "it draws nothing"
    one, other = (view[::2] for view in bench.of(images, fan)[:2])  # a scan, mixed with its like or with another
    require(bool((one != one[0]).any()), f"{COUNT // 2} copies of an image come out equal")
    require(bool((one != other).any()), "both views of an image come out equal")
    return ""


def leaves_what_is_outside(bench: Bench) -> None:
    """Outside the sector black stays black; a step that asks for the sector leaves any pixel there as it was."""
    pixels, inside = _pixels()
    for grey in (0.0, OTHER_GREY):
        given = torch.where(inside, pixels, torch.full_like(pixels, grey))
        for place, step in enumerate(bench.steps):
            if grey == 0.0 or step.wants_sector:
                changed = bench.applied(step, given, inside)
                wrong = int((changed != given)[~inside].sum())
                require(wrong == 0, f"{_called(step, place)} changes {wrong} pixels outside: put them back")


def takes_any_size_and_batch(bench: Bench) -> None:
    """It takes an odd size, and a batch of one."""
    images, fan = toy.scans(3, 0)
    for size, count in ((ODD, 3), (SIZE, 1)):
        for view in bench.of(images[:count], fan[:count], bench.build(size)):
            require(torch.isfinite(view).all(), f"{count} views of {size} px are not finite")


def crops_with_a_sound_affine(bench: Bench) -> str:
    """A spatial step gives an invertible affine for each view, global or local."""
    spatial = 0
    for place, step in enumerate(bench.steps):
        for local in (False, True):
            matrix = bench.drawn(step, COUNT, local=local).get("affine")
            if matrix is None:
                continue
            spatial += 1
            require(matrix.shape == (COUNT, 3, 3), f"{_called(step, place)} gives affines of {matrix.shape}")
            size = np.abs(np.linalg.det(matrix.astype(np.float64)))
            require(np.isfinite(size).all() and size.min() > 1e-4, f"{_called(step, place)} folds a view to nothing")
            require(np.allclose(matrix[:, 2], (0, 0, 1)), f"{_called(step, place)} gives a last row that is not 0 0 1")
    return "" if spatial else "no spatial step"


def costs(bench: Bench) -> str:
    """Its cost is told: the time that a view takes."""
    images, fan = toy.scans(COSTED, 0, COST_SIZE)
    views = bench.build(COST_SIZE, (2, 0))
    seconds = []
    for seed in range(3):
        began = time.perf_counter()
        bench.of(images, fan, views, seed)
        seconds.append(time.perf_counter() - began)
    return f"{1e3 * min(seconds) / 2 / COSTED:.2f} ms a view of {COST_SIZE} px"


def _pixels() -> tuple[Tensor, Tensor]:
    images, fan = toy.scans(16, 1, SIZE)
    return images.float() / 255, fan


def _called(step: Augmentation, place: int) -> str:
    return f"step {place + 1}, {type(step).__name__},"


CHECKS = (
    says_what_it_is, makes_views, keeps_greys_in_range, keeps_shape_and_input, hangs_on_its_draws,
    draws_for_each_sample, leaves_what_is_outside, takes_any_size_and_batch, crops_with_a_sound_affine, costs,
)  # fmt: skip
