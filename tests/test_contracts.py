"""The contracts: what the base classes do, so that a plugin need not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from usbench import Augmentation, Batch, Clip, Image, Loss, Network, Out, Protocol
from usbench.contracts import named, pooled


class Pyramid(nn.Module):
    """Two maps, of strides 2 and 4; remembers the shapes it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.calls: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> list[Tensor]:
        self.calls.append(tuple(images.shape))
        first = self.first(images)
        return [first, self.second(first)]


class Decoder(nn.Module):
    def forward(self, maps: list[Tensor]) -> Tensor:
        return maps[-1]


def network() -> Network:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Conv2d(6, 1, 1), nn.Upsample(scale_factor=4))
    return Network(Pyramid(), Decoder(), head, dim=6, stride=4)


def views(*sizes: int, count: int = 3) -> list[Tensor]:
    source = torch.Generator().manual_seed(1)
    return [torch.randn(count, 1, size, size, generator=source) for size in sizes]


def batch_of(images: list[Tensor], step: int = 0, total: int = 5) -> Batch:
    n = len(images[0])
    unknown = torch.full((n,), -1)
    return Batch(
        images, [torch.eye(2, 3).expand(n, 2, 3)] * len(images), [],
        index=torch.arange(n), label=unknown, video=unknown, frame=unknown[:, None], tag=unknown,
        time=torch.full((n, 1), float("nan")), step=step, total=total, rng=np.random.default_rng(step),
    )  # fmt: skip


def head(dim: int) -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(dim, 5))


class Agree(Loss):
    """A teacher, a predictor and two named parts."""

    teacher = (0.9, 1.0)

    def __init__(self, network: Network) -> None:
        super().__init__(network, head=head, predictor=lambda: nn.Linear(5, 5))

    def objective(self, out: Out, batch: Batch) -> Mapping[str, Tensor]:
        return {"pull": (out.p[0] - out.t[1]).square().mean(), "small": 0.1 * out.z[0].square().mean()}


def test_progress_goes_from_nought_to_one() -> None:
    assert [batch_of(views(8), step, 5).progress for step in (0, 2, 4)] == [0, 0.5, 1]
    assert batch_of(views(8), 0, 1).progress == 0


def test_the_feature_vector_is_the_mean_of_the_deepest_map() -> None:
    maps = views(8, 4)
    assert torch.equal(pooled(maps), maps[1].sum((2, 3)) / 16)
    out = Out([[m.bfloat16() for m in maps], maps])
    assert [f.dtype for f in out.features] == [torch.float32] * 2


def test_a_network_is_its_encoder_decoder_and_head_in_a_row() -> None:
    built, images = network(), views(16)[0]
    logits = built(images)
    assert logits.shape == images.shape
    assert torch.equal(logits, built.head(built.decoder(built.encoder(images))))


@pytest.mark.parametrize(
    ("value", "names"),
    [(torch.tensor(2.0), ["loss"]), ({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, ["a", "b"])],
)
def test_the_parts_of_a_loss_have_names(value: Tensor | Mapping[str, Tensor], names: list[str]) -> None:
    assert list(named(value)) == names


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"pull": torch.zeros(3)}, r"'pull'.*\(3,\)"),
        (torch.zeros(1), r"'loss'.*\(1,\)"),
        ({"pull": 0.0}, "'pull'.*float"),
    ],
)
def test_a_part_that_is_no_scalar_tensor_is_refused_by_name(value: Tensor | Mapping[str, Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        named(value)


def test_what_a_plugin_forgot_to_write_is_said_with_its_name() -> None:
    class Empty(Loss):
        pass

    class Nothing(Protocol):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty must write objective"):
        Empty(network())(batch_of(views(16, 16)))
    for call in (
        lambda: Nothing().objective(torch.zeros(1), None),
        lambda: Nothing().inner(torch.zeros(1), None),
        lambda: Nothing().predict(torch.zeros(1), 4),
        lambda: Nothing().score(np.zeros(1), np.zeros(1), 1.0),
    ):
        with pytest.raises(NotImplementedError, match="Nothing must write"):
            call()


def test_an_augmentation_that_writes_nothing_changes_nothing() -> None:
    images = views(8)[0]
    assert Augmentation().draw(np.random.default_rng(0), np.zeros((3, 4)), local=False) == {}
    assert Augmentation()(images, {}, None) is images
    built = network()
    assert Protocol().adapt(built) is built


def test_views_of_one_size_run_together_and_come_back_in_their_order() -> None:
    loss = Loss(network()).eval()
    images = views(16, 8, 16, 8)
    maps = loss.encode(loss.network.encoder, images)
    assert loss.network.encoder.calls == [(6, 1, 16, 16), (6, 1, 8, 8)]
    for image, levels in zip(images, maps, strict=True):
        for level, alone in zip(levels, loss.network.encoder(image), strict=True):
            torch.testing.assert_close(level, alone, atol=1e-6, rtol=1e-5)


def test_joint_views_share_their_batch_statistics_and_others_do_not() -> None:
    loss = Loss(network()).train()
    images = [view * (1 + i) + i for i, view in enumerate(views(16, 16))]
    joint = loss.encode(loss.network.encoder, images)
    loss.joint = False
    alone = loss.encode(loss.network.encoder, images)
    assert loss.network.encoder.calls == [(6, 1, 16, 16), (3, 1, 16, 16), (3, 1, 16, 16)]
    assert torch.equal(alone[1][1], loss.network.encoder(images[1])[1])
    assert not torch.allclose(joint[1][1], alone[1][1], atol=1e-2)
    norm = nn.BatchNorm1d(6).train()
    features = [torch.randn(4, 6), torch.randn(4, 6) + 3]
    assert torch.equal(loss.project(norm, features)[1], norm(features[1]))
    loss.joint = True
    assert torch.equal(torch.cat(loss.project(norm, features)), norm(torch.cat(features)))


def test_the_teacher_begins_as_the_student_and_is_built_not_copied() -> None:
    built: list[nn.Module] = []

    class Counted(Loss):
        teacher = (0.9, 1.0)

        def __init__(self, network: Network) -> None:
            super().__init__(network, head=lambda dim: built.append(head(dim)) or built[-1])

    loss = Counted(network())
    assert built == [loss.projector, loss.teacher_projector]
    for student, teacher in ((loss.projector, loss.teacher_projector), (loss.network.encoder, loss.teacher_encoder)):
        assert not any(p.requires_grad for p in teacher.parameters())
        for name, value in student.state_dict().items():
            assert torch.equal(value, teacher.state_dict()[name])
            assert value.data_ptr() != teacher.state_dict()[name].data_ptr()


def test_look_gives_what_each_network_made_of_each_view() -> None:
    loss = Agree(network()).eval()
    images = views(16, 16)
    out = loss.look(batch_of(images))
    with torch.no_grad():
        for i, image in enumerate(images):
            features = pooled(loss.network.encoder(image))
            torch.testing.assert_close(out.features[i], features)
            torch.testing.assert_close(out.z[i], loss.projector(features))
            torch.testing.assert_close(out.p[i], loss.predictor(loss.projector(features)))
            torch.testing.assert_close(out.t[i], loss.teacher_projector(pooled(loss.teacher_encoder(image))))
    assert out.p[0].requires_grad and not out.t[0].requires_grad
    assert not any(level.requires_grad for maps in out.teacher_maps for level in maps)


@pytest.mark.parametrize(
    ("item", "counts", "sizes", "seen"),
    [
        (Image(), (2, 2), (16, 16, 8, 8), [0, 1]),
        (Clip(("a", "b")), (1, 1), (16, 8, 16, 8), [0, 2]),  # role-major: each role's global view, then its local one
        (Clip(("a", "b")), (2, 0), (16, 16, 16, 16), [0, 1, 2, 3]),
    ],
    ids=["image", "clip with local views", "clip"],
)
def test_the_teacher_sees_every_global_view_and_no_local_one(
    item: Image | Clip, counts: tuple[int, int], sizes: tuple[int, ...], seen: list[int]
) -> None:
    class Watched(Agree):
        pass

    Watched.item, Watched.views = item, counts
    loss = Watched(network()).eval()
    images = views(*sizes)
    out = loss.look(batch_of(images))
    assert len(out.z) == len(sizes)
    assert len(out.teacher_maps) == len(out.t) == len(seen)
    for maps, i in zip(out.teacher_maps, seen, strict=True):
        torch.testing.assert_close(maps[-1], loss.teacher_encoder(images[i])[-1])


def test_the_teachers_momentum_follows_a_cosine_between_its_two_values() -> None:
    loss = Agree(network())
    for progress, momentum in ((0.0, 0.9), (0.5, 0.95), (1.0, 1.0)):
        with torch.no_grad():
            for teacher, student in (
                (loss.teacher_encoder, loss.network.encoder),
                (loss.teacher_projector, loss.projector),
            ):
                for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                    slow.fill_(1.0), fast.fill_(0.0)
        loss.update_teacher(progress)
        for module in (loss.teacher_encoder, loss.teacher_projector):
            for slow in module.parameters():
                assert slow == pytest.approx(torch.full_like(slow, momentum), abs=1e-6)


def test_without_a_teacher_there_is_nothing_to_move() -> None:
    loss = Loss(network())
    before = [p.clone() for p in loss.parameters()]
    loss.update_teacher(0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, loss.parameters(), strict=True))
    assert not hasattr(loss, "teacher_encoder")


def test_a_step_minimises_the_sum_of_the_parts_and_calls_its_hooks_in_order() -> None:
    called: list[str] = []

    class Ordered(Agree):
        def before_step(self, batch: Batch) -> None:
            called.append("before")

        def objective(self, out: Out, batch: Batch) -> Mapping[str, Tensor]:
            called.append("objective")
            return super().objective(out, batch)

        def after_backward(self, batch: Batch) -> None:
            called.append("after")
            self.gradient = self.projector.bias.grad.clone()

    loss = Ordered(network())
    batch = batch_of(views(16, 16))
    parts = named(loss(batch))
    (expected,) = torch.autograd.grad(sum(parts.values()), [loss.projector.bias])
    called.clear()
    optimizer = torch.optim.SGD([p for p in loss.parameters() if p.requires_grad], lr=0.1)
    before = loss.projector.bias.detach().clone()
    loss.projector.bias.grad = torch.full_like(before, 1e6)  # of a step before: must not be added to
    got = loss.step(batch, optimizer)
    assert called == ["before", "objective", "after"]
    torch.testing.assert_close(loss.gradient, expected)
    torch.testing.assert_close(loss.projector.bias.detach(), before - 0.1 * expected)
    assert list(got) == ["pull", "small"] and not any(value.requires_grad for value in got.values())


def test_the_networks_run_in_the_harness_precision_and_the_objective_in_float32() -> None:
    @contextlib.contextmanager
    def bf16() -> Iterator[None]:
        with torch.autocast("cpu", torch.bfloat16):
            yield

    class Says(Agree):
        def objective(self, out: Out, batch: Batch) -> Mapping[str, Tensor]:
            assert not torch.is_autocast_enabled("cpu")
            self.said = [x[0].dtype for x in (out.z, out.p, out.t, out.features)]
            return super().objective(out, batch)

    loss = Says(network())
    loss.autocast = bf16
    seen: list[torch.dtype] = []
    loss.network.encoder.first[0].register_forward_hook(lambda module, args, result: seen.append(result.dtype))
    loss(batch_of(views(16, 16)))
    assert seen == [torch.bfloat16]
    assert loss.said == [torch.float32] * 4
