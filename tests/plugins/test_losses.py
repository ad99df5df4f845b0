"""Every registered loss by its properties, and the ones of lightly against slow references written as loops."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from usbench import Loss, Out
from usbench.conformance import checks, losses
from usbench.conformance.toy import batch_of, build
from usbench.errors import UsbenchError
from usbench.hooks import Entry, registry
from usbench.train.loop import Compute
from usbench.train.pretrain import Part, build_loss
from usbench.train.schedule import Schedule

CPU = Compute(torch.device("cpu"), "float32")

ENTRIES = [entry for entry in registry().entries("loss") if entry.factory is not None]
CHECKS = [function.__name__ for function in losses.CHECKS]


pytestmark = pytest.mark.usefixtures("one_thread")


@functools.lru_cache(maxsize=1)
def checks_of(name: str) -> dict[str, Callable[[], str]]:
    """The checks of one loss; what they build is shared, and let go with the next loss."""
    return dict(checks(registry().get("loss", name)))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
class TestEveryLoss:
    """What any pretraining method must keep, whoever wrote it: the checks that strangers run too."""

    def test_keeps(self, entry: Entry, check: str) -> None:
        checks_of(entry.name)[check]()


def test_a_batch_below_the_least_is_refused_with_the_number() -> None:
    entry = registry().get("loss", "simclr")
    with pytest.raises(UsbenchError, match=r"'simclr' needs 2 items a batch and 1 images give 1"):
        build_loss(Part(entry, dict(entry.options)), build(entry).network, Schedule(4, 1, 1e-3, 0.0, 0.0), CPU, 0)


# The values, against references as slow and obvious as they can be.


def made_up(count: int, dim: int, views: int = 2, seed: int = 0) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(count, dim, generator=source) for _ in range(views)]


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> float:
    everything = [*one, *other]
    n, total = len(one), 0.0
    for i, anchor in enumerate(everything):
        positive = everything[(i + n) % (2 * n)]
        below = sum(math.exp(cosine(anchor, v) / temperature) for j, v in enumerate(everything) if j != i)
        total -= math.log(math.exp(cosine(anchor, positive) / temperature) / below)
    return total / (2 * n)


def test_simclr_is_nt_xent() -> None:
    loss = build(registry().get("loss", "simclr"), temperature=0.2)
    z = made_up(5, 16)
    got = loss.objective(Out([], z=z), batch_of(loss))
    assert float(got) == pytest.approx(nt_xent(*z, temperature=0.2), abs=1e-5)


def test_vicreg_is_invariance_variance_and_covariance() -> None:
    weights = {"lambda_param": 10.0, "mu_param": 7.0, "nu_param": 3.0}
    loss = build(registry().get("loss", "vicreg"), **weights)
    z = [0.7 * each for each in made_up(5, 4)]
    n, d = z[0].shape
    invariance = sum(float(z[0][i, k] - z[1][i, k]) ** 2 for i in range(n) for k in range(d)) / (n * d)
    variance = covariance = 0.0
    for view in z:
        centred = view - view.mean(0)
        for k in range(d):
            spread = math.sqrt(sum(float(x) ** 2 for x in centred[:, k]) / (n - 1) + 1e-4)
            variance += max(0.0, 1 - spread) / d / 2
            for m in range(d):
                if m != k:
                    shared = sum(float(centred[i, k] * centred[i, m]) for i in range(n)) / (n - 1)
                    covariance += shared**2 / d
    assert variance > 0
    got = loss.objective(Out([], z=z), batch_of(loss))
    assert float(got) == pytest.approx(10 * invariance + 7 * variance + 3 * covariance, rel=1e-4)


def test_byol_is_the_negative_cosine_between_each_prediction_and_the_other_views_target() -> None:
    loss = build(registry().get("loss", "byol"))
    p, t = made_up(5, 8), made_up(5, 8, seed=1)
    slow = -sum(cosine(p[0][i], t[1][i]) + cosine(p[1][i], t[0][i]) for i in range(5)) / 10
    assert float(loss.objective(Out([], p=p, t=t), batch_of(loss))) == pytest.approx(slow, abs=1e-5)


def moco(n: int, queue: int, steps: int) -> tuple[Loss, list[tuple[Tensor, Tensor, float]]]:
    """A loss that has seen `steps` batches of n, and of each: student's view, teacher's view, value."""
    loss = build(registry().get("loss", "moco"), queue=queue, projection=8, temperature=0.5)
    seen = []
    for step in range(steps):
        z, t = made_up(n, 8, seed=step)
        got = loss.objective(Out([], z=[z.requires_grad_(), z], t=[t, t]), batch_of(loss))
        seen.append((z.detach(), t, float(got.detach())))
    return loss, seen


def test_moco_contrasts_with_the_teachers_earlier_embeddings_the_newest_in_the_place_of_the_oldest() -> None:
    n, queue = 3, 6
    _, seen = moco(n, queue, steps=5)
    for step in range(2, 5):  # from here on the queue holds nothing that it began with
        z, t, got = seen[step]
        negatives = [row for _, earlier, _ in seen[step - 2 : step] for row in earlier]
        assert len(negatives) == queue
        slow = 0.0
        for i in range(n):
            below = sum(math.exp(cosine(z[i], negative) / 0.5) for negative in negatives)
            above = math.exp(cosine(z[i], t[i]) / 0.5)
            slow -= math.log(above / (above + below)) / n
        assert got == pytest.approx(slow, abs=1e-5)


def test_mocos_queue_takes_nothing_in_while_nothing_is_trained() -> None:
    loss, _ = moco(3, 6, steps=2)
    before = {name: buffer.clone() for name, buffer in loss.contrast.named_buffers()}
    assert before
    with torch.no_grad():
        z, t = made_up(3, 8, seed=9)
        loss.objective(Out([], z=[z, z], t=[t, t]), batch_of(loss))
    assert all(torch.equal(buffer, before[name]) for name, buffer in loss.contrast.named_buffers())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simclr", {"temperature": 0.0}),
        ("simclr", {"temperature": -0.1}),
        ("simclr", {"projection": 0}),
        ("simclr", {"projection": -1}),
        ("vicreg", {"lambda_param": -1.0}),
        ("vicreg", {"projection": 0}),
        ("byol", {"hidden": 0}),
        ("byol", {"projection": -1}),
        ("moco", {"temperature": 0.0}),
        ("moco", {"temperature": -0.1}),
        ("moco", {"queue": 0}),
        ("moco", {"queue": -5}),
        ("moco", {"projection": 0}),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(name: str, options: dict[str, Any]) -> None:
    (option,) = options
    with pytest.raises(UsbenchError, match=rf"loss '{name}' refuses .*{option}.*: {option} is "):
        build(registry().get("loss", name), **options)


def test_vicregs_terms_can_be_switched_off_one_by_one() -> None:
    z = made_up(5, 4)
    parts = []
    for kept in ("lambda_param", "mu_param", "nu_param"):
        options = {"lambda_param": 0.0, "mu_param": 0.0, "nu_param": 0.0, kept: 2.0}
        loss = build(registry().get("loss", "vicreg"), **options)
        parts.append(float(loss.objective(Out([], z=z), batch_of(loss))))
    loss = build(registry().get("loss", "vicreg"), lambda_param=2.0, mu_param=2.0, nu_param=2.0)
    assert float(loss.objective(Out([], z=z), batch_of(loss))) == pytest.approx(sum(parts), rel=1e-5)
