"""What any protocol must keep, whoever wrote it. A check's docstring is the promise."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor, nn

from usbench.conformance import promise
from usbench.conformance.promise import require, says_what_it_is
from usbench.contracts import Labelled, Network, Protocol, pooled
from usbench.draws import seed_globals
from usbench.evaluate.testing import check_columns, check_scores
from usbench.hooks import registry
from usbench.spec import presets
from usbench.train.held import check_protocol
from usbench.train.networks import build_network
from usbench.train.passes import is_frozen, mean_score, train_mode
from usbench.views import normalise

SIZE, PACK_SIZE, COUNT = 32, 48, 8
STEPS, FALL = 20, 0.05
CLASSES = ("small", "large")  # by the area of the disc
VIDEOS = np.array(["a", "a", "b", "b", "b", "", "", "c"])


def moving(model: nn.Module) -> dict[str, Tensor]:
    """The state that training changes: all but that of frozen modules and parameters."""
    frozen = {id(t) for part in model.modules() if is_frozen(part) for t in part.state_dict(keep_vars=True).values()}
    state = model.state_dict(keep_vars=True)
    fixed = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: value for name, value in state.items() if id(value) not in frozen and name not in fixed}


class Bench(promise.Bench):
    """A protocol, and bright discs on dark ground, small or large, to train it on."""

    @functools.cached_property
    def protocol(self) -> Protocol:
        made = self.entry.build(**self.entry.options)
        require(isinstance(made, Protocol), f"it built a {type(made).__name__}, no usbench.Protocol")
        made.classes, made.counts = CLASSES, (COUNT // 2, COUNT // 2)
        return made

    @functools.cached_property
    def batch(self) -> Labelled:
        rng = np.random.default_rng(0)
        rows, columns = np.mgrid[:SIZE, :SIZE]
        middles, radii = rng.uniform(0.3, 0.7, (COUNT, 2)) * SIZE, rng.uniform(0.15, 0.3, COUNT) * SIZE
        discs = [(rows - y) ** 2 + (columns - x) ** 2 < r**2 for (y, x), r in zip(middles, radii, strict=True)]
        mask = torch.from_numpy(np.stack(discs))[:, None].float()
        noise = torch.from_numpy(rng.uniform(0, 0.2, mask.shape).astype(np.float32))
        large = torch.from_numpy(radii > np.median(radii)).long()
        return Labelled(normalise(0.2 + 0.5 * mask + noise), mask, large)

    def model(self) -> nn.Module:
        backbone = registry().get("backbone", presets()["quick"]["backbone"])
        network = build_network(backbone, dict(backbone.options), SIZE, seed=0)
        assert isinstance(network, Network)
        seed_globals("conformance")
        model = self.protocol.adapt(network)
        if self.entry.frozen:
            with torch.no_grad():
                features = pooled(network.eval().encoder(self.batch.images))
            self.fitted = self.protocol.fit(model.requires_grad_(False), features, self.batch.label)
        train_mode(model)
        return model

    @functools.cached_property
    def output(self) -> Tensor:
        with torch.no_grad():
            return self.model().eval()(self.batch.images)


def gives_a_scalar_objective(bench: Bench) -> None:
    """Its objective is a finite scalar with a gradient; that of a fit to frozen features is finite."""
    if bench.entry.frozen:
        bench.model()
        require(math.isfinite(bench.fitted), f"the fit's loss is {bench.fitted}")
        return
    loss = bench.protocol.objective(bench.model()(bench.batch.images), bench.batch)
    shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
    require(isinstance(loss, Tensor) and loss.ndim == 0, f"the objective is {shape}, not a scalar")
    require(torch.isfinite(loss) and loss.requires_grad, f"the objective is {loss.item()}, or has no gradient")


def learns_a_toy(bench: Bench) -> None:
    """Its objective falls on bright discs, and the inner score rises; a fit tells small from large ones."""
    model = bench.model()
    if bench.entry.frozen:
        score = mean_score(bench.protocol.inner(bench.output, bench.batch))
        require(score > 1 / len(CLASSES), f"the inner score of {len(CLASSES)} classes is {score:.4g}")
        return
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    values, scores = [], []
    for step in range(STEPS):
        seed_globals("conformance", step)
        output = model(bench.batch.images)
        loss = bench.protocol.objective(output, bench.batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
        scores.append(mean_score(bench.protocol.inner(output.detach(), bench.batch)))
    require(values[-1] < values[0] - FALL * abs(values[0]), f"it goes from {values[0]:.4g} to {values[-1]:.4g}")
    require(scores[-1] > scores[0], f"the inner score goes from {scores[0]:.4g} to {scores[-1]:.4g}")


def freezes_what_it_says(bench: Bench) -> None:
    """What it freezes stays as it is, BatchNorm's statistics too, and something else is trained."""
    model = bench.model()
    trained = [p for p in model.parameters() if p.requires_grad]
    require(bool(trained) != bench.entry.frozen, "nothing is trained" if not trained else "a fit trains nothing")
    free = moving(model)
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    train_mode(model)
    output = model(bench.batch.images)
    if trained:
        bench.protocol.objective(output, bench.batch).backward()
        torch.optim.SGD(trained, 0.1).step()
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    require(not set(moved) - free.keys(), f"{promise.listed(set(moved) - free.keys())} moved, and was frozen")
    require(moved or not trained, "no parameter moved")


def scores_each_image_inside(bench: Bench) -> None:
    """The inner score has one number an image, or one for each part that it may be of."""
    shape = tuple(bench.protocol.inner(bench.output, bench.batch).shape)
    require(shape[:1] == (COUNT,) and len(shape) < 3, f"for {COUNT} images it is {shape}")


def predicts_masks_of_the_packs_size(bench: Bench) -> None:
    """A prediction is a bool mask of the pack's size for each image; without masks, finite numbers."""
    masks = bench.protocol.predict(bench.output, PACK_SIZE)
    if not bench.protocol.masks:
        require(masks.shape[:1] == (COUNT,) and masks.ndim > 1, f"for {COUNT} images it is {tuple(masks.shape)}")
        require(masks.isfinite().all(), "a number is not finite")
        return
    require(masks.shape == (COUNT, PACK_SIZE, PACK_SIZE), f"for {COUNT} images of {PACK_SIZE} px: {tuple(masks.shape)}")
    require(masks.dtype == torch.bool, f"it is {masks.dtype}, not bool")


def scores_what_it_names(bench: Bench) -> None:
    """A score has every named metric, of which `primary` is one and higher is better; a normal image is scored too."""
    protocol = bench.protocol
    check_protocol(protocol, bench.entry.name)
    check_columns(protocol.metrics)
    if not protocol.masks:
        predicted = protocol.predict(bench.output, PACK_SIZE).numpy()
        columns = protocol.tabulate(predicted, bench.batch.label.numpy(), VIDEOS)
        require(set(columns) >= set(protocol.metrics), f"the table has {sorted(columns)}, not {protocol.metrics}")
        check_columns(columns)
        uneven = [name for name, values in columns.items() if np.shape(values) != (COUNT,)]
        require(not uneven, f"{promise.listed(uneven)} has not one value an image")
        require(np.isfinite(np.nanmean(columns[protocol.primary])), "the primary score is not finite")
        return
    disc, empty = bench.batch.mask[0, 0].numpy() > 0.5, np.zeros((SIZE, SIZE), np.bool_)
    for truth in (disc, empty):
        for predicted in (disc, empty):
            found = protocol.score(predicted, truth, 1.0)
            require(set(found) >= set(protocol.metrics), f"a score has {sorted(found)}, not {sorted(protocol.metrics)}")
            check_scores(protocol, found)
    # An empty mask need not have a score: then one that lies beside the truth tells what is better.
    beside = np.roll(disc, SIZE // 4, axis=1)
    perfect, nothing, shifted = (protocol.score(mask, disc, 1.0)[protocol.primary] for mask in (disc, empty, beside))
    require(math.isfinite(perfect), "a perfect mask has no primary score")
    worse, which = (shifted, "one beside it") if math.isnan(nothing) else (nothing, "an empty one")
    said = f"'{protocol.primary}' of a perfect mask is {perfect:.4g}, and of {which} {worse:.4g}"
    require(not worse >= perfect, f"{said}: higher must be better")


CHECKS = (
    says_what_it_is, gives_a_scalar_objective, learns_a_toy, freezes_what_it_says, scores_each_image_inside,
    predicts_masks_of_the_packs_size, scores_what_it_names,
)  # fmt: skip
