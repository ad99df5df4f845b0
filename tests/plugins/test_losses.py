"""Every registered loss by its properties, and the ones of lightly against slow references written as loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from usbench_freq.spatial import Spatial

from usbench import Batch, Loss, Network, Out
from usbench.contracts import named
from usbench.draws import generator, seed_globals
from usbench.errors import UsbenchError
from usbench.hooks import Entry, registry
from usbench.train import checkpoint
from usbench.train.loop import Compute, Schedule, adamw
from usbench.train.pretrain import Part, build_loss
from usbench.views import Views

CPU = torch.device("cpu")
SIZE, STEPS = 32, 4
ENTRIES = [entry for entry in registry().entries("loss") if entry.factory is not None]
Change = Callable[[Batch], Batch]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network_for(entry: Entry) -> Network:
    """The smallest network that gives what the loss needs of one."""
    backbones = list(registry().entries("backbone"))
    needs = {need for need in entry.needs if any(need in other.gives for other in backbones)}
    if not needs:
        return registry().get("backbone", "unet-tiny").build()
    fits = next(other for other in backbones if needs <= set(other.gives))
    return fits.build(**{key: value for key, value in {"dim": 32, "depth": 2}.items() if key in fits.options})


def build(entry: Entry, *, seed: int = 0, precision: str = "float32", **options: Any) -> Loss:
    seed_globals(seed, "network")
    network = network_for(entry)
    schedule = Schedule(STEPS, 512, 1e-3, 1e-4, 0.25)
    return build_loss(Part(entry, {**entry.options, **options}), network, schedule, Compute(CPU, precision), seed)


def optimizer_of(loss: Loss) -> torch.optim.AdamW:
    return adamw(Schedule(STEPS, 6, 1e-3, 1e-4, 0.25), [(loss, 1.0)])


def batch_of(loss: Loss, step: int = 0, count: int | None = None) -> Batch:
    """Blobs, through the harness's own views; every field known, and the generator fresh."""
    k = len(loss.item.roles)
    n = max(6, loss.min_batch) if count is None else count
    coarse = np.random.default_rng(step).uniform(0, 255, (k * n, 1, 8, 8))
    images = functional.interpolate(torch.from_numpy(coarse), size=(40, 40), mode="bilinear").to(torch.uint8)
    views = Views([Spatial()], SIZE, loss.views)
    boxes = np.array([[-1, -1, 1, 1]], np.float32).repeat(k * n, 0)
    sector = torch.ones_like(images) if loss.wants_sector else None
    made = views(images, sector, views.draw(generator("views", step), boxes, CPU))
    by_role = [[part[role] for role in range(k) for part in [x.chunk(k) for x in each]] for each in made]
    at = torch.arange(n)
    frames = 3 * torch.arange(k)[None] + torch.zeros(n, 1, dtype=torch.long)
    return Batch(
        *by_role, index=at, label=at % 2, video=at, frame=frames, time=frames / 10, tag=at % 3,
        step=step, total=STEPS, rng=generator("loss", step),
    )  # fmt: skip


def value(loss: Loss, change: Change = lambda batch: batch, **of: Any) -> float:
    """The loss of a batch; what the loss remembers of having seen it is put back."""
    kept = {name: tensor.clone() for name, tensor in checkpoint.tensors_of(loss).items()}
    seed_globals("value")
    batch = change(batch_of(loss, **of))
    loss.before_step(batch)
    found = float(sum(named(loss(batch)).values()).detach())
    checkpoint.restore(loss, kept)
    return found


def train(loss: Loss, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    found = []
    for step in steps:
        seed_globals("train", step)
        batch = batch_of(loss, step)
        found.append(float(sum(loss.step(batch, optimizer).values())))
        loss.update_teacher(batch.progress)
    return found


def teacher_of(loss: Loss) -> dict[str, Tensor]:
    return {n: p for n, p in loss.named_parameters() if n.startswith(("teacher_encoder.", "teacher_projector."))}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
class TestEveryLoss:
    """What any pretraining method must keep, whoever wrote it."""

    def test_each_tensor_that_the_optimiser_sees_gets_a_gradient(self, entry: Entry) -> None:
        loss = build(entry)
        optimizer = optimizer_of(loss)
        names = {id(p): name for name, p in loss.named_parameters()}
        largest: dict[str, float] = {}
        for step in range(3):
            train(loss, optimizer, range(step, step + 1))
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                if p.grad is not None:
                    name = names[id(p)]
                    largest[name] = max(largest.get(name, 0.0), float(p.grad.abs().max()))
        assert not names.keys() - {id(p) for p in loss.parameters()}
        seen = {names[id(p)] for group in optimizer.param_groups for p in group["params"]}
        assert not sorted(seen - largest.keys()), "no gradient at all"
        # A norm or a softmax after it takes a bias away again, and leaves nothing but rounding.
        dead = [name for name, most in largest.items() if most < 1e-7 and not name.endswith("bias")]
        assert not dead

    def test_what_the_fine_tune_does_not_inherit_is_not_trained(self, entry: Entry) -> None:
        loss = build(entry)
        seen = {id(p) for group in optimizer_of(loss).param_groups for p in group["params"]}
        rest = [*loss.network.decoder.parameters(), *loss.network.head.parameters()]
        assert {id(p) for p in loss.network.encoder.parameters()} <= seen
        assert (loss.transfer == "network") == any(id(p) in seen for p in rest)
        assert not seen & {id(p) for p in teacher_of(loss).values()}

    def test_each_teacher_tensor_moves_and_has_no_gradient(self, entry: Entry) -> None:
        loss = build(entry)
        before = {name: p.clone() for name, p in teacher_of(loss).items()}
        assert (loss.teacher is not None) == bool(before)
        train(loss, optimizer_of(loss), range(3))
        for name, p in teacher_of(loss).items():
            assert p.grad is None and not p.requires_grad
            assert not torch.equal(p, before[name]), name

    def test_zeroing_the_teacher_changes_the_loss(self, entry: Entry) -> None:
        loss = build(entry)
        if loss.teacher is None:
            return
        before = value(loss)
        with torch.no_grad():
            for p in teacher_of(loss).values():
                p.zero_()
        assert abs(value(loss) - before) > 1e-3

    def test_each_view_matters(self, entry: Entry) -> None:
        """At the last step: a curriculum may leave a view out before."""
        loss = build(entry)
        before = value(loss, step=STEPS - 1)
        assert before == value(loss, step=STEPS - 1)
        for i in range(sum(loss.views) * len(loss.item.roles)):

            def change(batch: Batch, i: int = i) -> Batch:
                batch.views[i] = batch.views[i].flip(0)
                return batch

            assert abs(value(loss, change, step=STEPS - 1) - before) > 1e-6 * abs(before), f"view {i}"

    def test_labels_and_tags_change_the_loss_only_of_a_method_that_declares_them(self, entry: Entry) -> None:
        def change(batch: Batch) -> Batch:  # into other groups, not only into others' names
            other = (torch.arange(len(batch.label)) + 1) // 2 % 3
            return replace(batch, label=other, tag=other)

        loss = build(entry)
        same = value(loss) == value(loss, change)
        assert same == (loss.pretrain_labels == "none")

    def test_bf16_gives_a_finite_loss_near_that_of_float32(self, entry: Entry) -> None:
        exact, rough = value(build(entry)), value(build(entry, precision="bf16"))
        assert exact != rough  # the networks did run in bf16
        assert rough == pytest.approx(exact, rel=0.1, abs=0.1)
        loss = build(entry, precision="bf16")
        assert all(math.isfinite(v) for v in train(loss, optimizer_of(loss), range(3)))
        assert all(torch.isfinite(t).all() for t in checkpoint.tensors_of(loss).values())

    @pytest.mark.parametrize("count", ["odd", "least"])
    def test_an_odd_batch_and_the_least_batch_train(self, entry: Entry, count: str) -> None:
        loss = build(entry)
        n = loss.min_batch if count == "least" else max(5, loss.min_batch | 1)
        batch = batch_of(loss, count=n)
        parts = loss.step(batch, optimizer_of(loss))
        assert all(torch.isfinite(part) for part in parts.values())
        gradients = [p.grad for p in loss.network.encoder.parameters() if p.grad is not None]
        assert gradients and all(torch.isfinite(g).all() for g in gradients)
        assert max(float(g.abs().max()) for g in gradients) > 1e-7

    def test_a_batch_below_the_least_is_refused_with_the_number(self, entry: Entry) -> None:
        loss = build(entry)
        images = loss.min_batch * len(loss.item.roles) - 1
        schedule = Schedule(STEPS, images, 1e-3, 0.0, 0.0)
        with pytest.raises(UsbenchError, match=rf"'{entry.name}' needs {loss.min_batch} items"):
            build_loss(Part(entry, dict(entry.options)), loss.network, schedule, Compute(CPU, "float32"), 0)

    def test_saved_loaded_and_continued_it_is_as_if_it_had_never_stopped(self, entry: Entry, tmp_path: Path) -> None:
        loss = build(entry)
        optimizer = optimizer_of(loss)
        train(loss, optimizer, range(2))
        checkpoint.write(tmp_path / "loss", checkpoint.tensors_of(loss))
        checkpoint.write(tmp_path / "optimizer", checkpoint.optimizer_tensors(optimizer))
        expected = train(loss, optimizer, range(2, STEPS))

        again = build(entry, seed=1)
        optimizer_again = optimizer_of(again)
        checkpoint.restore(again, checkpoint.read(tmp_path / "loss")[0])
        checkpoint.restore_optimizer(optimizer_again, checkpoint.read(tmp_path / "optimizer")[0])
        assert train(again, optimizer_again, range(2, STEPS)) == expected
        for take, one, other in (
            (checkpoint.tensors_of, loss, again),
            (checkpoint.optimizer_tensors, optimizer, optimizer_again),
        ):
            first, second = take(one), take(other)
            assert first.keys() == second.keys()
            assert [name for name in first if not torch.equal(first[name], second[name])] == []

    def test_the_same_seed_gives_the_same_training_and_another_one_another(self, entry: Entry) -> None:
        def run(seed: int) -> tuple[list[float], dict[str, Tensor]]:
            loss = build(entry, seed=seed)
            return train(loss, optimizer_of(loss), range(3)), dict(loss.named_parameters())

        values, tensors = run(0)
        torch.rand(7), np.random.rand(7)  # the harness seeds the global generators; a private one would go on
        again, tensors_again = run(0)
        assert values == again
        assert [name for name in tensors if not torch.equal(tensors[name], tensors_again[name])] == []
        assert values != run(1)[0]

    def test_the_loss_of_a_fixed_batch_falls(self, entry: Entry) -> None:
        loss = build(entry)
        optimizer = optimizer_of(loss)
        memory = {name: buffer.clone() for name, buffer in loss.named_buffers()}
        found = []
        for step in range(15):
            # A queue would fill with this very batch, and make the task harder: it stays as it was.
            checkpoint.restore(loss, dict(loss.named_parameters()) | memory)
            seed_globals("fixed")
            found.append(float(sum(loss.step(batch_of(loss), optimizer).values())))
            loss.update_teacher(step / 14)
        assert max(found[-3:]) < found[0] - 0.1 * abs(found[0])

    def test_its_parts_are_named_scalars(self, entry: Entry) -> None:
        loss = build(entry)
        parts = named(loss(batch_of(loss)))
        assert parts and all(part.requires_grad and part.dtype == torch.float32 for part in parts.values())

    def test_it_says_what_it_is_and_where_it_is_from(self, entry: Entry) -> None:
        assert entry.summary and entry.reference.split("https://")[1:]


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
