"""The relation contrastive loss against slow references, pair by pair and pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from usbench_rcl.relation import RelationContrast, RelationHead, relation_loss

from usbench import Batch, Network, Out
from usbench.errors import UsbenchError
from usbench.hooks import registry
from usbench.views import affine, between

FORMS = ("infonce", "bce", "mse")


class Pyramid(nn.Module):
    """Maps of the strides 2, 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList([nn.Conv2d(1, 4, 2, 2), nn.Conv2d(4, 5, 2, 2), nn.Conv2d(5, 6, 2, 2)])

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for level in self.levels:
            images = level(images)
            maps.append(images)
        return maps


def network() -> Network:
    return Network(Pyramid(), nn.Identity(), nn.Identity(), dim=6, stride=8)


def settled(head: RelationHead, seed: int = 0) -> RelationHead:
    """A head in eval mode with uneven statistics: each pair's score is then its own."""
    source = torch.Generator().manual_seed(seed)
    head.norm.running_mean = torch.randn(head.norm.num_features, generator=source)
    head.norm.running_var = torch.rand(head.norm.num_features, generator=source) + 0.5
    return head.eval()


def rcl(**options: Any) -> RelationContrast:
    torch.manual_seed(0)
    loss = RelationContrast(network(), **{"dense_weight": 0.0, "projection": 0} | options)
    settled(loss.relation)
    if loss.dense_weight:
        settled(loss.dense_relation, seed=1)
    return loss.requires_grad_(False)


def made_up(*shape: int, views: int = 2) -> list[Tensor]:
    source = torch.Generator().manual_seed(2)
    return [torch.randn(*shape, generator=source) for _ in range(views)]


def geometry(count: int, *, seed: int = 0, whole: bool = False) -> Tensor:
    rng = np.random.default_rng(seed)
    half = np.ones((count, 2)) if whole else rng.uniform(0.5, 0.8, (count, 2))
    matrix = affine(rng.uniform(-0.3, 0.3, (count, 2)), half, rng.uniform(-30, 30, count), rng.random(count) < 0.5)
    return torch.from_numpy(matrix[:, :2].copy())


def batch_of(n: int, where: tuple[Tensor, Tensor] | None = None, seed: int = 0) -> Batch:
    u = torch.full((n,), -1)
    same = torch.eye(2, 3).expand(n, 2, 3)
    return Batch(
        [torch.zeros(n, 1, 16, 16)] * 2, list(where or (same, same)), [], index=u, label=u, video=u, frame=u[:, None],
        time=u[:, None].float(), tag=u, step=0, total=1, rng=np.random.default_rng(seed),
    )  # fmt: skip


# The head.


def test_the_relation_is_symmetric() -> None:
    head = RelationHead(6, 16)
    u, v = made_up(9, 6)
    for training in (True, False):
        settled(head).train(training)
        torch.testing.assert_close(head(u, v), head(v, u), atol=1e-6, rtol=1e-5)
    assert (head(u, v) - head(u, v.roll(1, 0))).abs().max() > 1e-3


def test_the_relation_is_an_mlp_on_the_concatenated_pair_averaged_over_both_orders() -> None:
    head = settled(RelationHead(6, 16))
    mlp = nn.Sequential(nn.Linear(12, 16, bias=False), head.norm, nn.LeakyReLU(), head.out)
    with torch.no_grad():
        mlp[0].weight.copy_(torch.cat([head.first.weight, head.second.weight], 1))
    u, v = made_up(5, 6)
    table = head(u[:, None], v[None])
    assert table.shape == (5, 5)
    for i in range(5):
        for j in range(5):
            there, back = torch.cat([u[i], v[j]])[None], torch.cat([v[j], u[i]])[None]
            assert table[i, j].item() == pytest.approx(((mlp(there) + mlp(back)) / 2).item(), abs=1e-5)


def test_in_training_the_relation_normalises_over_all_pairs_and_both_orders() -> None:
    head = RelationHead(6, 16).train()
    u, v = made_up(5, 6)
    pairs = [torch.cat(pair) for pair in [*zip(u, v, strict=True), *zip(v, u, strict=True)]]
    hidden = torch.stack(pairs) @ torch.cat([head.first.weight, head.second.weight], 1).T
    normal = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + head.norm.eps).sqrt()
    scores = head.out(nn.functional.leaky_relu(normal))[:, 0]
    torch.testing.assert_close(head(u, v), (scores[:5] + scores[5:]) / 2, atol=1e-5, rtol=1e-4)


# What is made of the scores.


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow_relation_loss(scores: Tensor, positive: Tensor, form: str, temperature: float, both: bool) -> float:
    table, is_positive = scores.tolist(), positive.tolist()
    places = [(i, j) for i in range(len(table)) for j in range(len(table[0]))]
    positives = [place for place in places if is_positive[place[0]][place[1]]]
    negatives = [place for place in places if not is_positive[place[0]][place[1]]]
    if form == "bce":
        return -sum(math.log(sigma(table[i][j])) for i, j in positives) / len(positives) - sum(
            math.log(1 - sigma(table[i][j])) for i, j in negatives
        ) / len(negatives)
    if form == "mse":
        return sum((sigma(table[i][j]) - 1) ** 2 for i, j in positives) / len(positives) + sum(
            sigma(table[i][j]) ** 2 for i, j in negatives
        ) / len(negatives)
    rows = columns = 0.0
    for i, j in positives:
        above = math.exp(table[i][j] / temperature)
        rows -= math.log(above / sum(math.exp(x / temperature) for x in table[i]))
        columns -= math.log(above / sum(math.exp(row[j] / temperature) for row in table))
    return (rows + columns) / 2 / len(positives) if both else rows / len(positives)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("both", [True, False])
def test_the_loss_of_a_table_of_scores_equals_a_loop(form: str, both: bool) -> None:
    scores = 2 * made_up(5, 5, views=1)[0]
    positive = torch.eye(5, dtype=torch.bool)
    got = relation_loss(scores, positive, form, 0.7, both=both)
    assert float(got) == pytest.approx(slow_relation_loss(scores, positive, form, 0.7, both), abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_all_negatives_are_every_pair_of_different_images(form: str) -> None:
    loss = rcl(form=form, temperature=0.7)
    u, v = made_up(5, 6)
    scores = torch.tensor([[float(loss.relation(a[None], b[None])) for b in v] for a in u])
    slow = slow_relation_loss(scores, torch.eye(5, dtype=torch.bool), form, 0.7, both=True)
    parts = loss.objective(Out([], z=[u, v]), batch_of(5))
    assert list(parts) == ["relation"]
    assert float(parts["relation"]) == pytest.approx(slow, abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_shifted_negatives_are_one_other_image_each(form: str) -> None:
    loss = rcl(form=form, negatives="shift")
    u, v = made_up(5, 6)
    scores = torch.tensor([[float(loss.relation(u[i][None], v[j][None])) for j in (i, i - 1)] for i in range(5)])
    positive = torch.tensor([[True, False]] * 5)
    slow = slow_relation_loss(scores, positive, form, 1.0, both=False)
    got = loss.objective(Out([], z=[u, v]), batch_of(5))["relation"]
    assert float(got) == pytest.approx(slow, abs=1e-5)
    everything = rcl(form=form, negatives="all").objective(Out([], z=[u, v]), batch_of(5))["relation"]
    assert abs(float(got) - float(everything)) > 1e-4


def test_the_added_contrast_is_nt_xent_times_its_weight_and_leaves_the_rest() -> None:
    u, v = made_up(5, 6)
    plain = rcl().objective(Out([], z=[u, v]), batch_of(5))
    parts = rcl(nt_xent_weight=0.3).objective(Out([], z=[u, v]), batch_of(5))
    assert list(parts) == ["relation", "nt_xent"] and torch.equal(parts["relation"], plain["relation"])
    everything = nn.functional.normalize(torch.cat([u, v]), dim=1)
    slow = 0.0
    for i in range(10):
        likeness = [float(everything[i] @ everything[j]) / 0.1 for j in range(10)]
        below = sum(math.exp(x) for j, x in enumerate(likeness) if j != i)
        slow -= math.log(math.exp(likeness[(i + 5) % 10]) / below) / 10
    assert float(parts["nt_xent"]) == pytest.approx(0.3 * slow, rel=1e-5)


def test_without_a_projector_the_relation_reads_the_features_and_with_one_its_output() -> None:
    images = [torch.rand(4, 1, 16, 16) for _ in range(2)]
    batch = batch_of(4)
    batch.views = images
    bare = rcl()
    u, v = (bare.network.encoder(image)[-1].mean((2, 3)) for image in images)
    torch.testing.assert_close(bare(batch)["relation"], bare.objective(Out([], z=[u, v]), batch)["relation"])
    assert bare.projector is None and bare.relation.first.in_features == 6
    headed = rcl(projection=10)
    assert headed.relation.first.in_features == 10
    assert [z.shape for z in headed.look(batch).z] == [(4, 10)] * 2


# The dense term.


class Nearness(nn.Module):
    """A relation that is known: minus the distance, large where two places differ."""

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        self.pairs = (u, v)
        return -100 * (u - v).abs().sum(-1)


def coordinates(where: Tensor, size: int = 64) -> Tensor:
    """(n, 3, size, size): in each pixel of a view, which place of which image it shows."""
    at = (torch.arange(size) * 2 + 1) / size - 1
    view = torch.stack([*torch.meshgrid(at, at, indexing="xy"), torch.ones(size, size)])
    place = torch.einsum("nij,jhw->nihw", where, view)
    return torch.cat([place, torch.arange(len(where))[:, None, None, None].expand(-1, 1, size, size)], 1)


def dense(loss: RelationContrast, maps: list[Tensor], batch: Batch) -> Tensor:
    return loss._dense(maps, batch)


@pytest.mark.parametrize("whole", [True, False], ids=["identical views", "two crops"])
def test_a_positive_is_the_same_place_of_the_same_image(whole: bool) -> None:
    loss = rcl(dense_weight=1.0, dense_points=200)
    loss.dense_relation = Nearness()
    same = torch.eye(2, 3).expand(4, 2, 3)
    where = (same, same) if whole else (geometry(4, seed=1), geometry(4, seed=2))
    maps = [coordinates(each) for each in where]
    value = dense(loss, maps, batch_of(4, where))
    u, candidates = loss.dense_relation.pairs
    points = torch.from_numpy(np.random.default_rng(0).uniform(-0.95, 0.95, (4, 200, 2)).astype("float32"))
    matrix = between(*where)
    seen = ((points @ matrix[:, :, :2].mT + matrix[:, None, :, 2]).abs() < 0.95).all(-1)
    assert (u[:, :, 0] - candidates[:, :, 0])[seen].abs().max() < 1e-3
    assert (u - candidates[:, :, 1:])[seen].abs().amax(-1).min() > 1e-3  # and no negative is
    assert bool(seen.all()) == whole and seen.any()
    assert float(value) < 0.05  # a relation that knows the place has nothing left to learn


def bilinear(level: Tensor, x: float, y: float) -> Tensor:
    """(c, h, w) at a place in [-1, 1], the rim's pixels reaching outwards."""
    _, height, width = level.shape
    column = min(max(((x + 1) * width - 1) / 2, 0.0), width - 1.0)
    row = min(max(((y + 1) * height - 1) / 2, 0.0), height - 1.0)
    left, top = min(int(column), width - 2), min(int(row), height - 2)
    right, low = column - left, row - top
    upper = level[:, top, left] * (1 - right) + level[:, top, left + 1] * right
    lower = level[:, top + 1, left] * (1 - right) + level[:, top + 1, left + 1] * right
    return upper * (1 - low) + lower * low


def slow_dense(loss: RelationContrast, maps: list[Tensor], batch: Batch, rng: np.random.Generator) -> tuple[float, int]:
    """The mean over the points seen in both views, and how many there are."""
    n, k = len(maps[0]), loss.dense_points
    points = rng.uniform(-0.95, 0.95, (n, k, 2))
    there = np.empty_like(points)
    bottom = np.array([[0.0, 0.0, 1.0]])
    for i in range(n):
        first, second = (np.vstack([g[i].double().numpy(), bottom]) for g in batch.geometry)
        for p in range(k):
            there[i, p] = (np.linalg.inv(second) @ first @ np.array([*points[i, p], 1.0]))[:2]

    def seen(i: int, p: int) -> bool:
        return bool((np.abs(there[i, p]) < 0.95).all())

    values = []
    for i in range(n):
        for p in range(k):
            if not seen(i, p):
                continue
            u = bilinear(maps[0][i], *points[i, p])

            def score(j: int, q: int, u: Tensor = u) -> float:
                return float(loss.dense_relation(u[None], bilinear(maps[1][j], *there[j, q])[None]))

            candidates = [((i - 1) % n, p), ((i - 2) % n, p)]
            if np.linalg.norm(there[i, p] - there[i, (p - 1) % k]) > 0.25:
                candidates.append((i, (p - 1) % k))
            negatives = [score(j, q) for j, q in candidates if seen(j, q) and (j, q) != (i, p)]
            positive = score(i, p)
            if loss.form == "infonce":
                above = math.exp(positive / loss.temperature)
                below = above + sum(math.exp(x / loss.temperature) for x in negatives)
                values.append(-math.log(above / below))
            elif loss.form == "bce":
                worst = [-math.log(1 - sigma(x)) for x in negatives]
                values.append(-math.log(sigma(positive)) + sum(worst) / max(1, len(worst)))
            else:
                worst = [sigma(x) ** 2 for x in negatives]
                values.append((sigma(positive) - 1) ** 2 + sum(worst) / max(1, len(worst)))
    return sum(values) / max(1, len(values)), len(values)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("form", FORMS)
def test_the_dense_term_equals_a_loop_over_every_point(form: str, n: int) -> None:
    loss = rcl(form=form, temperature=8.0, dense_weight=1.0, dense_points=12)
    maps = made_up(n, 6, 5, 5)
    where = geometry(n, seed=3), geometry(n, seed=4)
    slow, count = slow_dense(loss, maps, batch_of(n, where), np.random.default_rng(0))
    assert 0 < count < n * 12  # some points of one view lie outside the other
    assert float(dense(loss, maps, batch_of(n, where))) == pytest.approx(slow, abs=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_what_the_other_view_does_not_show_counts_for_nothing(form: str) -> None:
    loss = rcl(form=form, dense_weight=1.0)
    half = torch.tensor([[0.5, 0.0, -0.5], [0.0, 0.5, 0.0]]).expand(3, 2, 3)
    other = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.5, 0.0]]).expand(3, 2, 3)
    maps = [level.requires_grad_() for level in made_up(3, 6, 8, 8)]
    value = dense(loss, maps, batch_of(3, (half, other)))  # the left half and the right half
    value.backward()
    assert value.item() == 0.0
    assert all((level.grad == 0).all() for level in maps)


def test_a_point_at_the_rim_reads_the_rim_and_no_black() -> None:
    loss = rcl(dense_weight=1.0, dense_points=300)
    loss.dense_relation = Nearness()
    dense(loss, [torch.ones(2, 6, 4, 4)] * 2, batch_of(2))
    u, candidates = loss.dense_relation.pairs
    torch.testing.assert_close(u, torch.ones_like(u))
    torch.testing.assert_close(candidates, torch.ones_like(candidates))


def test_the_dense_term_is_weighted_and_read_from_the_map_of_its_stride() -> None:
    maps = [[level[None].expand(3, *level.shape) for level in levels] for levels in strided()]
    parts = {w: rcl(dense_weight=w, dense_stride=4).objective(Out(maps), batch_of(3)) for w in (1.0, 0.25)}
    assert float(parts[0.25]["dense"]) == pytest.approx(0.25 * float(parts[1.0]["dense"]), rel=1e-6)
    loss = rcl(dense_weight=1.0, dense_stride=4)
    assert float(parts[1.0]["dense"]) == pytest.approx(float(dense(loss, [m[1] for m in maps], batch_of(3))), rel=1e-6)


def strided() -> list[list[Tensor]]:
    source = torch.Generator().manual_seed(5)
    return [[torch.randn(c, s, s, generator=source) for c, s in ((4, 8), (5, 4), (6, 2))] for _ in range(2)]


@pytest.mark.parametrize(("stride", "channels"), [(2, 4), (4, 5), (8, 6)])
def test_a_stride_names_a_map_of_the_encoder(stride: int, channels: int) -> None:
    loss = rcl(dense_weight=1.0, dense_stride=stride)
    assert loss.dense_relation.first.in_features == channels


def test_looking_for_the_stride_leaves_the_network_as_it_was() -> None:
    built = registry().get("backbone", "unet-tiny").build()
    before = {name: value.clone() for name, value in built.state_dict().items()}
    loss = RelationContrast(built)
    assert loss.network.training and built.encoder.training
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"form": "softmax"}, "form is 'softmax': one of infonce, bce, mse"),
        ({"negatives": "some"}, "negatives is 'some': one of all, shift"),
        ({"temperature": 0.0}, "temperature"),
        ({"hidden": 0}, "hidden"),
        ({"projection": -1}, "projection"),
        ({"nt_xent_weight": -0.1}, "nt_xent_weight"),
        ({"dense_weight": -0.1}, "dense_weight"),
        ({"dense_points": 1}, "dense_points"),
        ({"dense_stride": 3}, r"dense_stride is 3: the encoder's maps have the strides \[1, 2, 4, 8, 16, 32\]"),
        ({"dense_hidden": 0}, "dense_hidden"),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    built = registry().get("backbone", "unet-tiny").build()
    with pytest.raises(UsbenchError, match=f"loss 'rcl' refuses .*: {said}"):
        registry().get("loss", "rcl").build(built, **options)


def test_rcl_image_is_rcl_without_its_dense_term() -> None:
    entry, image = registry().get("loss", "rcl"), registry().get("loss", "rcl-image")
    built = registry().get("backbone", "unet-tiny").build()
    assert entry.build(built).dense_weight > 0 and image.build(built).dense_weight == 0
    assert set(entry.options) - set(image.options) == {
        "dense_weight", "dense_points", "dense_stride", "dense_hidden"
    }  # fmt: skip
    assert entry.reconstruction and image.reconstruction
