"""The ultrasound methods against slow references written as loops."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from lightly.loss import BarlowTwinsLoss, NTXentLoss, VICRegLoss
from torch import Tensor
from usbench_ultrasound.contrast import Classifier, nt_xent
from usbench_ultrasound.hard import EMPTY
from usbench_ultrasound.hico import Levels
from usbench_ultrasound.pixpro import Propagation, centres
from usbench_ultrasound.tagged import supervised_contrast

from usbench import Batch, Loss, Out
from usbench.contracts import named
from usbench.draws import generator, seed_globals
from usbench.errors import UsbenchError
from usbench.hooks import registry

NAN = float("nan")


def build(name: str, **options: Any) -> Loss:
    seed_globals(0, "network")
    network = registry().get("backbone", "unet-tiny").build()
    loss = registry().get("loss", name).build(network, **options)
    network.decoder.requires_grad_(False)
    network.head.requires_grad_(False)
    return loss.train()


def batch_of(loss: Loss, n: int = 4, *, step: int = 0, total: int = 5, **known: Any) -> Batch:
    """Noise in every view; what is not given is known and plain."""
    source = torch.Generator().manual_seed(step)
    k = len(loss.item.roles)
    views = [torch.randn(n, 1, 32, 32, generator=source) for _ in range(k * sum(loss.views))]
    at = torch.arange(n)
    plain = {
        "geometry": [torch.eye(2, 3).expand(n, 2, 3)] * len(views), "index": at, "label": at % 2, "video": at,
        "frame": torch.arange(k).expand(n, k), "time": torch.arange(k).expand(n, k) / 10, "tag": at % 2, "views": views,
    }  # fmt: skip
    return Batch(sectors=[], step=step, total=total, rng=generator("loss", step), **{**plain, **known})


def made_up(count: int, dim: int, views: int = 2, seed: int = 0) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(count, dim, generator=source) for _ in range(views)]


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


def slow_nt_xent(one: Tensor, other: Tensor, temperature: float, index: list[int]) -> list[float]:
    every, who, n = [*one, *other], index * 2, len(one)
    found = []
    for i in range(2 * n):
        mate = (i + n) % (2 * n)
        above = math.exp(cosine(every[i], every[mate]) / temperature)
        below = above + sum(
            math.exp(cosine(every[i], every[j]) / temperature) for j in range(2 * n) if who[j] != who[i]
        )
        found.append(-math.log(above / below))
    return [(found[i] + found[i + n]) / 2 for i in range(n)]


# Contrast and classifier, which several methods share.


@pytest.mark.parametrize("index", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 1]])
def test_nt_xent_pair_by_pair_takes_another_pair_of_the_same_item_as_no_negative(index: list[int]) -> None:
    z = made_up(5, 8)
    got = nt_xent(*z, 0.5, torch.tensor(index))
    assert got.tolist() == pytest.approx(slow_nt_xent(*z, 0.5, index), abs=1e-5)


def test_nt_xent_of_items_that_all_differ_is_lightlys() -> None:
    z = made_up(6, 8)
    assert torch.allclose(nt_xent(*z, 0.1, torch.arange(6)).mean(), NTXentLoss(0.1)(*z), atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_classifier_is_cross_entropy_over_the_labelled_items_and_the_classes_met(smoothing: float) -> None:
    classifier = Classifier(8, smoothing)
    z, label = made_up(4, 8), torch.tensor([3, -1, 5, 3])
    slow = 0.0
    for view in z:
        for i in (0, 2, 3):
            scores = {c: float(classifier.linear(view[i])[c].detach()) for c in (3, 5)}
            below = math.log(sum(math.exp(s) for s in scores.values()))
            for c, score in scores.items():
                target = (1 - smoothing) * (c == int(label[i])) + smoothing / 2
                slow -= target * (score - below) / 3
    assert float(classifier(z, label)) == pytest.approx(slow, abs=1e-5)
    assert classifier.met.nonzero()[:, 0].tolist() == [3, 5]


def test_a_batch_without_a_label_costs_nothing_before_and_after_the_first_label() -> None:
    classifier = Classifier(8, 0.2)
    z = [view.requires_grad_() for view in made_up(4, 8)]
    unknown, some = torch.full((4,), -1), torch.tensor([1, -1, 0, -1])
    for label in (unknown, some, unknown):
        cost = classifier(z, label)
        (gradient,) = torch.autograd.grad(cost, z[0])
        assert torch.isfinite(gradient).all() and (cost > 0) == (label is some)
        assert gradient.any(1).tolist() == (label >= 0).tolist()


@pytest.mark.parametrize("name", ["uscl", "hico", "awcl", "supcon"])
def test_unknown_labels_and_tags_train_without_nan(name: str) -> None:
    loss = build(name)
    unknown = torch.full((4,), -1)
    batch = batch_of(loss, label=unknown, tag=unknown)
    parts = loss.step(batch, torch.optim.SGD(loss.network.encoder.parameters(), lr=0.1))
    assert all(torch.isfinite(part) for part in parts.values())
    assert parts.get("label", torch.zeros(())) == 0
    assert all(torch.isfinite(p).all() for p in loss.parameters())


# USCL, HiCo.


def test_uscl_mixes_the_middle_frame_into_both_others_with_one_share_a_video() -> None:
    loss = build("uscl")
    frame = torch.tensor([[4, 2, 7], [3, 3, 5], [3, 5, 5], [6, 6, 6], [-1, -1, -1]])
    batch = batch_of(loss, 5, frame=frame)
    share = generator("loss", 0).beta(0.5, 0.5, 5)
    got = loss.mix(batch)
    x = batch.views
    for i in range(5):
        part = float(share[i]) if i == 0 else 1.0  # two frames are not mixed, and one is seen twice
        assert torch.allclose(got[0][i], part * x[0][i] + (1 - part) * x[1][i], atol=1e-5)
        assert torch.allclose(got[1][i], part * x[2][i] + (1 - part) * x[1][i], atol=1e-5)


def test_uscl_is_the_contrast_and_a_fifth_of_both_cross_entropies() -> None:
    loss = build("uscl", projection=8)
    z = made_up(4, 8)
    batch = batch_of(loss, label=torch.tensor([0, 1, -1, 0]))
    parts = loss.objective(Out([], z=z), batch)
    assert float(parts["contrast"]) == pytest.approx(np.mean(slow_nt_xent(*z, 0.5, [0, 1, 2, 3])), abs=1e-5)
    assert float(parts["label"]) == pytest.approx(0.2 * float(loss.classifier(z, batch.label)), abs=1e-6)


def test_hico_contrasts_peers_on_each_level_and_the_global_one_with_the_others() -> None:
    loss = build("hico", projection=8)
    local, mid, whole = (made_up(4, 8, seed=seed) for seed in range(3))
    index = [0, 1, 2, 3]

    def slow(one: Tensor, other: Tensor) -> float:
        return float(np.mean(slow_nt_xent(one, other, 0.5, index)))

    batch = batch_of(loss)
    parts = loss.objective(Levels([], levels=[local, mid, whole]), batch)
    assert float(parts["peer"]) == pytest.approx(0.5 * sum(slow(*level) for level in (local, mid, whole)), abs=1e-5)
    cross = sum(slow(whole[v], level[v]) / 2 for level in (local, mid) for v in range(2))
    assert float(parts["cross"]) == pytest.approx(0.5 * cross, abs=1e-5)
    smooth = Classifier(8, 0.2)
    smooth.load_state_dict(loss.classifier.state_dict())
    assert float(parts["label"]) == pytest.approx(0.2 * float(smooth(whole, batch.label)), abs=1e-6)


def test_hicos_levels_are_pooled_from_a_top_down_path() -> None:
    loss = build("hico").eval()
    batch = batch_of(loss)
    levels = loss.look(batch).levels
    mixed = loss.mix(batch_of(loss))
    lateral = loss.pyramid.lateral
    for v, view in enumerate(mixed):
        maps = loss.network.encoder(view)[2:]  # strides 4, 8, 16, 32
        above = lateral[3](maps[3])
        tops = {3: above}
        for i in (2, 1, 0):
            above = lateral[i](maps[i]) + above.repeat_interleave(2, 2).repeat_interleave(2, 3)
            tops[i] = above
        for level, i in enumerate((0, 1, 3)):
            assert torch.allclose(levels[level][v], loss.embed[level](tops[i].mean((2, 3))), atol=1e-4)


# Meta-USCL.


def meta() -> tuple[Loss, Batch]:
    loss = build("meta-uscl", held_out=3, virtual_lr=0.5, projection=8)
    with torch.no_grad():  # weights that differ from pair to pair
        loss.scorer.layers[0].weight.mul_(20)
        loss.scorer.layers[2].weight.mul_(10)
    return loss, batch_of(loss, 7)


def test_meta_uscl_mixes_the_middle_frame_into_both_others_with_shares_of_their_own() -> None:
    loss, _ = meta()
    batch = batch_of(loss, 3, frame=torch.tensor([[0, 2, 5], [0, 0, 5], [1, 1, 1]]))
    rng = generator("loss", 0)
    a, b = rng.beta(3, 5, 3), rng.beta(3, 5, 3)
    got, x = loss.mix(batch), batch.views
    for i in range(3):
        first, last = (float(a[i]), float(b[i])) if i == 0 else (0.0, 0.0)
        assert torch.allclose(got[0][i], (1 - first) * x[0][i] + first * x[1][i], atol=1e-5)
        assert torch.allclose(got[1][i], last * x[1][i] + (1 - last) * x[2][i], atol=1e-5)


def test_the_weights_gradient_is_that_of_a_virtual_step_unrolled_by_hand() -> None:
    loss, batch = meta()
    learn, held, index = loss.split(batch)
    assert index.tolist() == [0, 3, 6] and learn.index.tolist() == [1, 2, 4, 5]
    each, pairs = loss.contrast(learn)
    got = loss.meta_gradient(each, pairs, held, index)

    trained = [*loss.network.encoder.parameters(), *loss.projector.parameters()]
    of_pair = [torch.autograd.grad(term, trained, retain_graph=True) for term in each]
    layers = copy.deepcopy(loss.scorer).requires_grad_(True)
    weights = layers(pairs)
    assert weights.detach().std() > 0.05
    n = len(each)
    encoder, projector = copy.deepcopy(loss.network.encoder), copy.deepcopy(loss.projector)
    stepped = [*encoder.parameters(), *projector.parameters()]
    with torch.no_grad():
        for place, p in enumerate(stepped):
            p -= 0.5 * sum(float(weights[i]) * of_pair[i][place] for i in range(n)) / n
    features = encoder(torch.cat(held))[-1].mean((2, 3))
    contrast = NTXentLoss(0.5)(*projector(features).chunk(2))
    slope = torch.autograd.grad(contrast, stepped)
    expected = [torch.zeros_like(p) for p in layers.parameters()]
    for i in range(n):
        along = sum(float((s * g).sum()) for s, g in zip(slope, of_pair[i], strict=True))
        own = torch.autograd.grad(weights[i], list(layers.parameters()), retain_graph=True)
        for place, gradient in enumerate(own):
            expected[place] -= 0.5 / n * along * gradient
    assert max(float(e.abs().max()) for e in expected) > 1e-5
    for mine, slow in zip(got, expected, strict=True):
        assert torch.allclose(mine, slow, rtol=1e-3, atol=1e-7)


def test_meta_uscls_encoder_steps_on_the_contrast_with_the_new_weights() -> None:
    loss, batch = meta()
    before = copy.deepcopy(loss)
    parameters = [*loss.network.encoder.parameters(), *loss.projector.parameters()]
    said = loss.step(batch, torch.optim.SGD(parameters, lr=0.1))
    assert [not torch.equal(a, b) for a, b in zip(loss.scorer.parameters(), before.scorer.parameters(), strict=True)]
    before.scorer.load_state_dict(loss.scorer.state_dict())
    each, pairs = before.contrast(before.split(batch_of(loss, 7))[0])
    slow = sum(float(w) * term for w, term in zip(before.scorer(pairs), each, strict=True)) / len(each)
    own = [*before.network.encoder.parameters(), *before.projector.parameters()]
    for p, old, gradient in zip(parameters, own, torch.autograd.grad(slow, own), strict=True):
        assert torch.allclose(p, old - 0.1 * gradient, atol=1e-6)
    assert float(said["loss"]) == pytest.approx(float(slow), abs=1e-5)
    for (name, mine), (_, theirs) in zip(loss.named_buffers(), before.named_buffers(), strict=True):
        if "running" in name:  # of BatchNorm: the virtual network left no trace
            assert torch.allclose(mine, theirs, atol=1e-6), name


def test_the_weights_follow_torchs_adam() -> None:
    loss, _ = meta()
    reference = copy.deepcopy(loss.scorer.layers).requires_grad_(True)
    adam = torch.optim.Adam(reference.parameters(), lr=0.01)
    for seed in range(3):
        gradients = [made_up(*p.view(len(p), -1).shape, 1, seed)[0].view_as(p) for p in reference.parameters()]
        for p, gradient in zip(reference.parameters(), gradients, strict=True):
            p.grad = gradient.clone()
        adam.step()
        loss.scorer.update(gradients, 0.01)
    for mine, theirs in zip(loss.scorer.layers.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize(("items", "trained"), [(3, [1, 2]), (2, [0, 1])])
def test_a_batch_with_one_held_out_video_trains_without_it_where_it_can_and_leaves_the_weights(
    items: int, trained: list[int]
) -> None:
    loss, _ = meta()
    before = [p.clone() for p in loss.scorer.parameters()]
    batch = batch_of(loss, items)
    learn, held, _ = loss.split(batch)
    assert learn.index.tolist() == trained and [len(view) for view in learn.views] == [2, 2, 2] and not held
    loss.step(batch, torch.optim.SGD(loss.network.encoder.parameters(), lr=0.1))
    assert all(torch.equal(a, b) for a, b in zip(before, loss.scorer.parameters(), strict=True))


# IVPP.

FRAMES = torch.tensor([[0, 4], [9, 9], [12, 10], [-1, -1], [3, 6]])
TIMES = torch.tensor([[0.0, 0.4], [0.9, 0.9], [NAN, NAN], [NAN, NAN], [0.2, 0.4]])


def slow_weights(seconds: float, fps: float) -> list[float]:
    found = []
    for rate, apart in ((10, 4), (fps, 0), (fps, 2), (fps, 0), (15, 3)):
        reach = max(math.floor(seconds * rate + 0.01), apart)
        found.append((reach - apart + 1) / (reach + 1))
    return found


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.5])
def test_a_pair_weighs_the_less_the_further_its_frames_are_apart(seconds: float) -> None:
    loss = build("ivpp", seconds=seconds, fps=24.0)
    got = loss.weight(batch_of(loss, 5, frame=FRAMES, time=TIMES))
    assert got.tolist() == pytest.approx(slow_weights(seconds, 24.0), abs=1e-5)


def test_ivpp_is_the_mean_of_the_weighted_contrasts() -> None:
    loss = build("ivpp", fps=24.0)
    z = made_up(5, 8)
    slow = np.mean(np.array(slow_weights(1.5, 24.0)) * slow_nt_xent(*z, 0.1, [0, 1, 2, 3, 4]))
    got = loss.objective(Out([], z=z), batch_of(loss, 5, frame=FRAMES, time=TIMES))
    assert float(got) == pytest.approx(slow, abs=1e-5)


def test_ivpp_barlow_weighs_means_deviations_and_correlation() -> None:
    loss = build("ivpp-barlow", fps=24.0)
    z, w = made_up(5, 4), np.array(slow_weights(3.0, 24.0))
    w = w / w.sum()
    mean = [[sum(w[i] * float(v[i, d]) for i in range(5)) for d in range(4)] for v in z]
    var = [[sum(w[i] * (float(z[v][i, d]) - mean[v][d]) ** 2 for i in range(5)) for d in range(4)] for v in range(2)]
    slow = {"invariance": 0.0, "redundancy": 0.0}
    for d in range(4):
        for e in range(4):
            c = sum(w[i] * (float(z[0][i, d]) - mean[0][d]) * (float(z[1][i, e]) - mean[1][e]) for i in range(5))
            c /= math.sqrt((var[0][d] + 1e-5) * (var[1][e] + 1e-5))
            if d == e:
                slow["invariance"] += (c - 1) ** 2
            else:
                slow["redundancy"] += 0.005 * c**2
    got = loss.objective(Out([], z=z), batch_of(loss, 5, frame=FRAMES, time=TIMES))
    assert {name: float(part) for name, part in got.items()} == pytest.approx(slow, abs=1e-5)


def test_of_equal_frames_ivpps_other_forms_are_lightlys_losses() -> None:
    z, still = made_up(5, 8), torch.zeros(5, 2)
    for name, reference in (("ivpp-barlow", BarlowTwinsLoss(0.005)), ("ivpp-vicreg", VICRegLoss())):
        loss = build(name)
        got = sum(named(loss.objective(Out([], z=z), batch_of(loss, 5, frame=still, time=still))).values())
        assert float(got) == pytest.approx(float(reference(*z)), rel=1e-5)


def test_ivpp_vicreg_weighs_the_invariance_alone() -> None:
    loss = build("ivpp-vicreg", fps=24.0)
    z, w = made_up(5, 4), slow_weights(0.5, 24.0)
    got = loss.objective(Out([], z=z), batch_of(loss, 5, frame=FRAMES, time=TIMES))
    slow = sum(w[i] * float(z[0][i, d] - z[1][i, d]) ** 2 for i in range(5) for d in range(4)) / 20
    assert float(got["invariance"]) == pytest.approx(25 * slow, rel=1e-5)
    assert float(got["spread"]) == pytest.approx(float(VICRegLoss(lambda_param=0)(*z)), rel=1e-5)


# UCL with hard negatives.


@pytest.mark.parametrize(("step", "has_intra"), [(0, False), (1, False), (2, True), (12, True)])
def test_ucl_contrasts_with_the_intra_negatives_after_a_sixth_and_with_other_videos_always(
    step: int, has_intra: bool
) -> None:
    loss = build("ucl-hard", store=6, nearest=2, projection=8)
    temperature, stored = 0.07, []
    for earlier, videos in ((7, [0, 1, 2, 3]), (step, [5, 1, 1, 0])):
        z, (t,) = made_up(4, 8, 4, seed=earlier), made_up(4, 8, 1, seed=100 + earlier)
        video = torch.tensor(videos)
        got = loss.objective(Out([], z=z, t=[t]), batch_of(loss, 4, step=earlier, total=13, video=video))
        stored = [*stored, *((t[i] / t[i].norm(), videos[i]) for i in range(4))][-6:]
    slow = 0.0
    for i in range(4):
        others = sorted((s for s, v in stored if v != videos[i]), key=lambda s: -cosine(z[0][i], s))[:2]
        share = [math.exp(cosine(z[0][i], s) / temperature) for s in others]
        cross = sum(w / sum(share) * s for w, s in zip(share, others, strict=True))
        negatives = [cross, *([z[j][i] for j in (1, 2, 3)] if has_intra else [])]
        above = math.exp(cosine(z[0][i], t[i]) / temperature)
        slow -= math.log(above / (above + sum(math.exp(cosine(z[0][i], o) / temperature) for o in negatives))) / 4
    assert float(got) == pytest.approx(slow, abs=1e-4, rel=1e-5)
    assert loss.stored_video.tolist() == [v for _, v in stored]


def test_an_anchor_without_another_video_has_only_its_intra_negatives() -> None:
    loss = build("ucl-hard", projection=8)
    z, (t,) = made_up(3, 8, 4), made_up(3, 8, 1, seed=1)
    z[0].requires_grad_()
    for step in (4, 0):
        got = loss.objective(Out([], z=z, t=[t]), batch_of(loss, 3, step=step, video=torch.zeros(3).long()))
        (gradient,) = torch.autograd.grad(got, z[0])
        assert torch.isfinite(gradient).all() and (got > 0) == (step == 4) == bool(gradient.any())
    assert (loss.stored_video == EMPTY).sum() == 96 - 6


def test_ucls_negatives_have_a_gradient_and_its_positive_has_none() -> None:
    loss = build("ucl-hard")
    batch = batch_of(loss, step=4)
    batch.views = [view.requires_grad_() for view in batch.views]
    gradients = torch.autograd.grad(loss(batch), batch.views, allow_unused=True)
    assert [g is not None and bool(g.any()) for g in gradients] == [True, False, True, True, True]


# Supervised contrast.


@pytest.mark.parametrize(
    ("group", "index"),
    [([0, 1, 0, -1, -1], [0, 1, 2, 3, 4]), ([2, 2, 2, 2, 2], [0, 1, 2, 3, 4]), ([-1, -1, 1, 0, 0], [0, 0, 1, 2, 3])],
    ids=["some unknown", "all one group", "an item twice"],
)
def test_supervised_contrast_decides_item_by_item(group: list[int], index: list[int]) -> None:
    z = made_up(5, 8)
    every, groups, who = [*z[0], *z[1]], group * 2, index * 2
    all_one = len(set(group)) == 1
    slow = 0.0
    for i in range(10):
        below = math.log(sum(math.exp(cosine(every[i], every[j]) / 0.5) for j in range(10) if j != i))
        positives = [
            j for j in range(10) if j != i and (who[i] == who[j] or (groups[i] == groups[j] >= 0 and not all_one))
        ]
        slow -= sum(cosine(every[i], every[j]) / 0.5 - below for j in positives) / len(positives) / 10
    got = supervised_contrast(z, torch.tensor(group), torch.tensor(index), 0.5)
    assert float(got) == pytest.approx(slow, abs=1e-5)
    if all_one:
        assert float(got) == pytest.approx(float(NTXentLoss(0.5)(*z)), abs=1e-5)


def test_awcl_reads_tags_and_supcon_labels() -> None:
    z, one, other = made_up(4, 8), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    for name, temperature, group in (("awcl", 0.5, one), ("supcon", 0.1, other)):
        loss = build(name)
        got = loss.objective(Out([], z=z), batch_of(loss, tag=one, label=other))
        assert torch.equal(got, supervised_contrast(z, group, torch.arange(4), temperature))


# Relational reasoning, PixPro.


@pytest.mark.parametrize("focus", [0.0, 2.0])
def test_relational_reasoning_aggregates_pairs_and_shifts_the_batch_further_from_pair_to_pair(focus: float) -> None:
    loss = build("relational", augmentations=3, focus=focus).eval()
    views = made_up(4, 96, 3)
    maps = [[view[:, :, None, None]] for view in views]
    terms = []
    for place, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        for i in range(4):
            for j, target in ((i, 1.0), ((i - 1 - place) % 4, 0.0)):
                score = float(loss.relation(torch.cat([views[a][i], views[b][j]])[None]))
                right = 1 / (1 + math.exp(-score)) if target else 1 - 1 / (1 + math.exp(-score))
                terms.append(-((1 - right) ** focus) * math.log(right))
    assert float(loss.objective(Out(maps), batch_of(loss))) == pytest.approx(np.mean(terms), abs=1e-5)


def test_a_pixel_is_propagated_from_those_that_are_like_it() -> None:
    module = Propagation(6, 2.0)
    x = made_up(1, 6 * 2 * 3, 1)[0].view(1, 6, 2, 3)
    flat, transformed = x.flatten(2)[0].T, module.transform(x).flatten(2)[0].T
    got = module(x).flatten(2)[0].T
    for i in range(6):
        slow = sum(max(cosine(flat[i], flat[j]), 0.0) ** 2 * transformed[j] for j in range(6))
        assert torch.allclose(got[i], slow, atol=1e-5)


def test_pixpro_pulls_pixels_that_lie_on_the_same_place_of_the_image() -> None:
    loss = build("pixpro", threshold=0.7)
    angle = 0.3
    one = torch.tensor([[0.5, 0.0, 0.1], [0.0, 0.5, -0.2]])
    turned = torch.tensor([[-0.8 * math.cos(angle), -0.5 * math.sin(angle), 0.0],
                           [-0.8 * math.sin(angle), 0.5 * math.cos(angle), 0.1]])  # fmt: skip
    away = torch.tensor([[0.1, 0.0, 0.9], [0.0, 0.1, 0.9]])
    geometry = [torch.stack([one, one]), torch.stack([turned, away])]
    p, t = ([x.view(2, 8, 3, 4) for x in made_up(2, 96, 2, seed=seed)] for seed in range(2))
    places, sizes = [], []
    for matrices in geometry:
        for matrix in matrices:
            columns, rows = [-0.75, -0.25, 0.25, 0.75], [-2 / 3, 0.0, 2 / 3]
            points = [matrix[:, :2] @ torch.tensor([x, y]) + matrix[:, 2] for y in rows for x in columns]
            places.append(points)
            corner = [matrix[:, 0] / 4, matrix[:, 1] / 3]  # half edges
            sizes.append(2 * math.sqrt(sum(float(edge @ edge) for edge in corner)))
    slow = 0.0
    for a, b in ((0, 1), (1, 0)):
        n, i = 0, 0
        terms = []
        for i in range(12):
            for j in range(12):
                size = max(sizes[2 * a], sizes[2 * b])
                if float((places[2 * a][i] - places[2 * b][j]).norm()) <= 0.7 * size:
                    terms.append(cosine(p[a][0].flatten(1)[:, i], t[b][0].flatten(1)[:, j]))
        n = len(terms)
        assert 5 < n < 100
        slow -= sum(terms) / n  # the second image's views share nothing and cost nothing
    got = loss.objective(Out([], p=p, t=t), batch_of(loss, 2, geometry=geometry))
    assert float(got) == pytest.approx(slow, abs=1e-5)


def test_without_a_place_in_common_pixpro_costs_nothing_and_is_finite() -> None:
    loss = build("pixpro")
    near, far = (torch.tensor([[0.1, 0.0, at], [0.0, 0.1, at]]).expand(2, 2, 3) for at in (-0.9, 0.9))
    cost = loss(batch_of(loss, 2, geometry=[near, far]))
    cost.backward()
    assert cost == 0
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters() if p.grad is not None)


def test_a_flip_and_a_crop_move_the_pixels_with_the_image() -> None:
    flipped = torch.tensor([[[-0.5, 0.0, 0.5], [0.0, 0.25, 0.0]]])
    at, size = centres((2, 2), flipped)
    assert torch.allclose(at[0], torch.tensor([[0.75, -0.125], [0.25, -0.125], [0.75, 0.125], [0.25, 0.125]]))
    assert size.tolist() == pytest.approx([math.hypot(0.5, 0.25)])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("uscl", {"beta": 0.0}), ("uscl", {"label_weight": -0.1}), ("uscl", {"projection": 0}),
        ("hico", {"smoothing": 1.0}), ("hico", {"width": 0}), ("hico", {"temperature": 0.0}),
        ("meta-uscl", {"held_out": 1}), ("meta-uscl", {"beta": (3.0, 0.0)}), ("meta-uscl", {"virtual_lr": 0.0}),
        ("ivpp", {"seconds": 0.0}), ("ivpp", {"fps": -1.0}), ("ivpp-barlow", {"redundancy_weight": -1.0}),
        ("ivpp-vicreg", {"variance_weight": -1.0}), ("ucl-hard", {"store": 0}), ("ucl-hard", {"nearest": 0}),
        ("awcl", {"temperature": 0.0}), ("supcon", {"projection": -1}), ("relational", {"augmentations": 1}),
        ("relational", {"focus": -1.0}), ("pixpro", {"threshold": 0.0}), ("pixpro", {"stride": 3}),
    ],
)  # fmt: skip
def test_an_option_out_of_its_range_is_refused_by_name(name: str, options: dict[str, Any]) -> None:
    (option,) = options
    with pytest.raises(UsbenchError, match=rf"loss '{name}' refuses .*{option}.*: {option} is "):
        build(name, **options)
