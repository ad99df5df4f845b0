"""The values of lightly's methods, against loops, or against lightly's class fed by hand."""

from __future__ import annotations

import math

import lightly.loss
import numpy as np
import pytest
import torch
from lightly_parts import batch_of, cosine, log_softmax, loss_of, made_up, value
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from usbench import Out

CLOSE = {"abs": 1e-5, "rel": 1e-5}


def negatives(z: list[Tensor], anchor: int, view: int) -> list[Tensor]:
    return [rows[j] for rows in (z[view], z[1 - view]) for j in range(len(rows)) if j != anchor]


def test_dcl_leaves_the_positive_out_of_the_denominator() -> None:
    z, slow = made_up(5, 8), 0.0
    for view in range(2):
        for i in range(5):
            below = sum(math.exp(cosine(z[view][i], other) / 0.2) for other in negatives(z, i, view))
            slow += (math.log(below) - cosine(z[view][i], z[1 - view][i]) / 0.2) / 10
    assert value(loss_of("dcl", temperature=0.2), z=z) == pytest.approx(slow, **CLOSE)


def test_dclw_weighs_a_positive_by_how_far_it_is() -> None:
    z, slow = made_up(5, 8), 0.0
    far = [math.exp(cosine(z[0][i], z[1][i]) / 0.3) for i in range(5)]
    for view in range(2):
        for i in range(5):
            below = sum(math.exp(cosine(z[view][i], other) / 0.2) for other in negatives(z, i, view))
            weight = 2 - 5 * far[i] / sum(far)
            slow += (math.log(below) - weight * cosine(z[view][i], z[1 - view][i]) / 0.2) / 10
    assert value(loss_of("dclw", temperature=0.2, sigma=0.3), z=z) == pytest.approx(slow, **CLOSE)


def test_macl_has_a_temperature_that_follows_the_alignment_and_weighs_by_the_probability() -> None:
    z, slow = made_up(5, 8), 0.0
    temperature = 0.2 * (1 + 0.4 * sum(cosine(z[0][i], z[1][i]) for i in range(5)) / 5)
    for view in range(2):
        for i in range(5):
            scores = [cosine(z[view][i], other) / temperature for other in (z[1 - view][i], *negatives(z, i, view))]
            found = log_softmax(scores, 0)
            slow -= found / (1 - math.exp(found)) / 10
    assert value(loss_of("macl", temperature=0.2, alpha=0.4), z=z) == pytest.approx(slow, **CLOSE)


def test_directclr_contrasts_the_first_share_of_the_features() -> None:
    loss = loss_of("directclr", temperature=0.2, share=0.25)
    count = loss.network.dim // 4
    features = made_up(5, loss.network.dim)
    z, slow = [view[:, :count] for view in features], 0.0
    for view in range(2):
        for i in range(5):
            others = (z[1 - view][i], *negatives(z, i, view))
            slow -= log_softmax([cosine(z[view][i], other) / 0.2 for other in others], 0) / 10
    maps = [[view[:, :, None, None].expand(-1, -1, 2, 2)] for view in features]
    assert float(loss.objective(Out(maps), batch_of(5))) == pytest.approx(slow, **CLOSE)


def test_barlow_twins_brings_the_cross_correlation_to_the_identity() -> None:
    z, slow = made_up(6, 4), 0.0
    scaled = [(view - view.mean(0)) / (view.var(0, correction=0) + 1e-5).sqrt() for view in z]
    for k in range(4):
        for m in range(4):
            shared = sum(float(scaled[0][i, k] * scaled[1][i, m]) for i in range(6)) / 6
            slow += (1 - shared) ** 2 if k == m else 0.3 * shared**2
    assert value(loss_of("barlow-twins", lambda_param=0.3), z=z) == pytest.approx(slow, **CLOSE)


def test_wmse_is_the_distance_of_whitened_views_window_by_window() -> None:
    loss, z = loss_of("w-mse", window=8, projection=3), made_up(8, 3)
    white = []
    for view in (each.double().numpy() for each in z):
        centred = view - view.mean(0)
        covariance = (1 - 1e-4) * centred.T @ centred / 7 + 1e-4 * np.eye(3)
        white.append(torch.from_numpy(np.linalg.solve(np.linalg.cholesky(covariance), centred.T).T))
    slow = sum(2 - 2 * cosine(white[0][i], white[1][i]) for i in range(8)) / 8
    assert value(loss, z=z) == pytest.approx(slow, **CLOSE)
    # Three more images do not fill another window.
    more = [torch.cat([one, other]) for one, other in zip(z, made_up(3, 3, seed=1), strict=True)]
    assert value(loss, z=more) == pytest.approx(slow, **CLOSE)


def test_frossl_flattens_each_views_spectrum_and_pulls_views_to_their_mean() -> None:
    z, slow = made_up(5, 3, views=4), 0.0
    scaled = [(view / view.norm(dim=0)).double() for view in z]
    middle = sum(scaled) / 4
    for view in scaled:
        covariance = view.T @ view
        slow += math.log(float(((covariance / covariance.trace()) ** 2).sum()))
        slow += 0.7 * 4 * sum(float((view[i] - middle[i]).square().sum()) for i in range(5)) / 5
    assert value(loss_of("frossl", invariance_weight=0.7), z=z) == pytest.approx(slow, **CLOSE)


def test_emp_ssl_raises_the_coding_rate_and_lowers_the_angle_to_the_mean() -> None:
    z, slow = made_up(5, 3, views=4), 0.0
    unit = [normalize(view.double(), dim=1) for view in z]
    for view in unit:
        second = sum(np.outer(row, row) for row in view.numpy())
        slow -= 0.5 * math.log(np.linalg.det(np.eye(3) + 3 / (5 * 0.2) * second)) / 4
        slow -= 10 * sum(cosine(view[i], sum(each[i] for each in unit)) for i in range(5)) / 20
    assert value(loss_of("emp-ssl", inv_coef=10.0), z=z) == pytest.approx(slow, **CLOSE)


def slices(dim: int, count: int) -> Tensor:
    torch.manual_seed(3)
    directions = torch.randn(dim, count)
    torch.manual_seed(3)
    return (directions / directions.norm(dim=0)).double()


def drift(z: list[Tensor]) -> float:
    """The mean squared distance of all views to the mean of the two global ones."""
    return sum(float((view - (z[0] + z[1]) / 2).square().mean()) for view in z) / len(z)


def test_lejepa_compares_the_characteristic_function_of_random_slices_with_a_gaussians() -> None:
    z = made_up(5, 3, views=5)
    loss, directions = loss_of("lejepa", lambda_param=0.3, sigreg_num_vectors=4, local_views=3), slices(3, 4)
    knots = np.linspace(-3, 3, 33)
    slow = 0.0
    for view in z:
        for k in range(4):
            along = (view.double() @ directions[:, k]).numpy()
            error = [
                abs(np.exp(1j * t * along).mean() - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2) for t in knots
            ]
            slow += 5 * float(np.trapezoid(error, knots)) / (5 * 4)
    assert value(loss, z=z) == pytest.approx(0.3 * slow + 0.7 * drift(z), **CLOSE)


def test_visreg_regulates_centre_scale_and_sliced_shape() -> None:
    z = made_up(5, 3, views=5)
    loss, directions = loss_of("visreg", lambda_param=0.3, num_slices=4, local_views=3), slices(3, 4)
    centre = scale = shape = 0.0
    wanted = [float(torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor((i + 1) / 6))) for i in range(5)]
    for view in (each.double() for each in z):
        spread = view.std(0, correction=0)
        centre += float(view.mean(0).square().mean()) / 5
        scale += float((1 - spread).square().mean()) / 5
        along = ((view - view.mean(0)) / (spread + 1e-4)) @ directions
        for k in range(4):
            ordered = sorted(along[:, k].tolist())
            shape += sum((a - b) ** 2 for a, b in zip(ordered, wanted, strict=True)) / (5 * 4 * 5)
    assert value(loss, z=z) == pytest.approx(0.3 * (centre + scale + shape) + 0.7 * drift(z), **CLOSE)


@pytest.mark.parametrize(("name", "views"), [("simsiam", 2), ("fastsiam", 3)])
def test_simsiam_predicts_the_mean_of_the_other_views_without_their_gradient(name: str, views: int) -> None:
    p, z = made_up(5, 8, views), made_up(5, 8, views, seed=1)
    loss = loss_of(name, **({"crops": views} if name == "fastsiam" else {}))
    slow = 0.0
    for v in range(views):
        for i in range(5):
            slow -= cosine(p[v][i], sum(z[w][i] for w in range(views) if w != v)) / (5 * views)
    assert value(loss, p=p, z=z) == pytest.approx(slow, **CLOSE)
    for each in (*p, *z):
        each.requires_grad_()
    loss.objective(Out([], p=p, z=z), batch_of(5)).backward()
    assert all(each.grad is not None for each in p) and all(each.grad is None for each in z)


def test_nnclr_contrasts_nearest_past_embeddings_of_the_first_view_with_predictions() -> None:
    loss = loss_of("nnclr", queue=6, projection=8, temperature=0.5)
    past: list[Tensor] = []
    for step in range(4):
        p, z = made_up(3, 8, seed=step), made_up(3, 8, seed=10 + step)
        got = float(loss.objective(Out([], p=p, z=[each.requires_grad_() for each in z]), batch_of(3)).detach())
        if len(past) == 6:
            slow = 0.0
            for view in range(2):
                for i in range(3):
                    near = max(past, key=lambda row: cosine(row, z[view][i].detach()))
                    slow -= log_softmax([cosine(near, other) / 0.5 for other in p[1 - view]], i) / 6
            assert got == pytest.approx(slow, **CLOSE)
        past = [*past, *z[0].detach()][-6:]
    before = loss.neighbour.bank.clone()
    value(loss, p=p, z=[each.detach() for each in z])
    assert torch.equal(before, loss.neighbour.bank)  # nothing is taken in while nothing is trained


def test_tico_agrees_with_the_teacher_and_avoids_the_running_covariance() -> None:
    loss = loss_of("tico", beta=0.6, rho=3.0, projection=4)
    covariance = torch.zeros(4, 4).double()
    for step in range(3):
        z, t = made_up(5, 4, seed=step), made_up(5, 4, seed=10 + step)
        got = float(loss.objective(Out([], z=[z[0].requires_grad_(), z[1]], t=t), batch_of(5)).detach())
        unit = normalize(z[0].detach().double(), dim=1)
        covariance = 0.6 * covariance + 0.4 * sum(torch.outer(row, row) for row in unit) / 5
        slow = sum(1 - cosine(z[0][i].detach(), t[1][i]) + 3 * float(unit[i] @ covariance @ unit[i]) for i in range(5))
        assert got == pytest.approx(slow / 5, **CLOSE)


def test_mmcr_spreads_the_means_and_flattens_each_images_views() -> None:
    z, t = made_up(5, 8), made_up(5, 8, seed=1)
    unit = np.stack([normalize(view.double(), dim=1).numpy() for view in (*z, *t)])
    spread = np.linalg.svd(unit.mean(0), compute_uv=False).sum()
    inside = sum(np.linalg.svd(unit[:, i], compute_uv=False).sum() for i in range(5)) / 5
    assert value(loss_of("mmcr", lmda=0.2), z=z, t=t) == pytest.approx(0.2 * inside - spread, **CLOSE)


def even(scores: np.ndarray) -> np.ndarray:
    """Sinkhorn: three rounds of even prototypes, then even images."""
    code = np.exp(scores / 0.05)
    for _ in range(3):
        code /= code.sum(0, keepdims=True)
        code /= code.sum(1, keepdims=True)
    return code


@pytest.mark.parametrize("queue", [0, 6])
def test_swav_predicts_the_other_global_views_even_code_helped_by_past_embeddings(queue: int) -> None:
    loss = loss_of("swav", prototypes=4, projection=8, queue=queue, queue_start=0.3, local_views=1, temperature=0.2)
    loss.before_step(batch_of(3))
    towards = loss.prototypes.heads[0].weight.detach().double().numpy()
    assert np.linalg.norm(towards, axis=1) == pytest.approx(np.ones(4))
    past: list[list[np.ndarray]] = [[], []]
    for step in range(5):
        z = made_up(3, 8, views=3, seed=step)
        batch = batch_of(3, step=step)
        got = loss.objective(Out([], z=[each.requires_grad_() for each in z]), batch)
        unit = [normalize(each.detach().double(), dim=1).numpy() for each in z]
        slow = 0.0
        for g in range(2):
            together = [*unit[g], *past[g]] if queue and step >= 3 else [*unit[g]]  # 3 / 9 ≥ queue_start, and full
            code = even(np.stack(together) @ towards.T)
            for v in (v for v in range(3) if v != g):
                for i in range(3):
                    scores = (towards @ unit[v][i] / 0.2).tolist()
                    slow -= sum(code[i, k] * log_softmax(scores, k) for k in range(4)) / (3 * 2 * 2)
            past[g] = [*past[g], *unit[g]][-6:]
        assert got.ndim == 0 and float(got.detach()) == pytest.approx(slow, **CLOSE)


def test_dino_gives_the_centred_sharpened_teachers_distribution_to_all_other_views() -> None:
    loss = loss_of("dino", outputs=4, local_views=1, teacher_temperature=(0.3, 0.6), centre_momentum=0.8)
    centre = np.zeros(4)
    for step in range(3):
        z, t = made_up(3, 4, views=3, seed=step), made_up(3, 4, seed=10 + step)
        got = value(loss, z=z, t=t, batch=batch_of(3, step=step, total=11))
        temperature = 0.3 + 0.3 * min(1, step / 10 / 0.3)
        slow = 0.0
        for g in range(2):
            for v in (v for v in range(3) if v != g):
                for i in range(3):
                    sharp = ((t[g][i].double().numpy() - centre) / temperature).tolist()
                    wanted = [math.exp(log_softmax(sharp, k)) for k in range(4)]
                    scores = (z[v][i].double() / 0.1).tolist()
                    slow -= sum(wanted[k] * log_softmax(scores, k) for k in range(4)) / (3 * 4)
        assert got == pytest.approx(slow, **CLOSE)
        centre = 0.8 * centre + 0.2 * np.concatenate([view.numpy() for view in t]).mean(0)


def test_smog_sorts_a_view_into_the_teachers_group_of_the_other_among_groups_that_move_with_the_step() -> None:
    loss = loss_of("smog", groups=4, bank=8, projection=8, temperature=0.5, beta=0.7)
    groups = [row.clone() for row in loss.groups.group_features]
    for step in range(3):
        p, z, t = (made_up(3, 8, seed=10 * step + k) for k in range(3))
        got = float(loss.objective(Out([], z=[v.requires_grad_() for v in z], p=p, t=t), batch_of(3)).detach())
        seen = [normalize(row, dim=0) for view in z for row in view.detach()]

        def nearest(row: Tensor, groups: list[Tensor] = groups) -> int:
            return int(np.argmax([cosine(row, group) for group in groups]))

        wanted = [[nearest(row) for row in view] for view in t]
        joined = [nearest(row) for row in seen]
        groups = [
            0.7 * groups[k] + 0.3 * sum(r for r, j in zip(seen, joined, strict=True) if j == k) / joined.count(k)
            if k in joined
            else groups[k]
            for k in range(4)
        ]
        slow = 0.0
        for v in range(2):
            for i in range(3):
                slow -= log_softmax([cosine(p[v][i], group) / 0.5 for group in groups], wanted[1 - v][i]) / 6
        assert got == pytest.approx(slow, **CLOSE)
        assert torch.allclose(loss.groups.group_features, torch.stack(groups), atol=1e-6)


def move(*teachers: torch.nn.Module) -> None:
    """Away from the student, whose copy a teacher is at first."""
    torch.manual_seed(5)
    with torch.no_grad():
        for p in (p for teacher in teachers for p in teacher.parameters()):
            p += 0.3 * p.abs().mean() * torch.randn_like(p)


def test_densecl_answers_a_position_with_the_teachers_most_similar_one_against_averaged_past_maps() -> None:
    loss = loss_of("densecl", queue=4, hidden=8, projection=6, temperature=0.5, dense=0.25)
    move(loss.teacher_projector)
    channels = loss.projector.dense.layers[0].in_features
    assert loss.teacher_projector.dense.layers[0].in_features == channels
    past: list[Tensor] = []
    for step in range(4):
        source = torch.Generator().manual_seed(step)
        maps, answers = (
            [[torch.randn(2, channels, 2, 2, generator=source)] * (loss.level + 1) for _ in range(2)] for _ in range(2)
        )
        z, t = made_up(2, 6, seed=step), made_up(2, 6, seed=10 + step)
        parts = loss.objective(Out(maps, teacher_maps=answers, z=z, t=t), batch_of(2))
        asking, answering = maps[0][0].flatten(2).mT, answers[1][0].flatten(2).mT
        with torch.no_grad():
            query, keys = loss.projector.dense(asking), loss.teacher_projector.dense(answering)
        if len(past) == 4:
            slow = 0.0
            for i in range(2):
                for place in range(4):
                    match = max(range(4), key=lambda k: cosine(asking[i, place], answering[i, k]))
                    rows = [keys[i, match], *past]
                    slow -= log_softmax([cosine(query[i, place], row) / 0.5 for row in rows], 0) / 8
            assert float(parts["dense"].detach()) == pytest.approx(0.25 * slow, **CLOSE)
        past = [*past, *keys.mean(1)][-4:]
    # The image-level term is moco's, which has a test of its own.
    assert set(parts) == {"image", "dense"}
    contrast = lightly.loss.NTXentLoss(0.5, memory_bank_size=(4, 6))
    contrast.memory_bank.bank.copy_(loss.contrast.memory_bank.bank)
    again = loss.objective(Out(maps, teacher_maps=answers, z=z, t=t), batch_of(2))
    assert float(again["image"]) == pytest.approx(0.75 * float(contrast(z[0], t[1])), **CLOSE)


def test_vicregl_is_lightlys_on_images_and_on_positions_with_their_places_in_the_image() -> None:
    loss, batch = loss_of("vicregl", alpha=0.6, matches=(3, 2), projection=6, dense_projection=5), batch_of(3)
    channels = loss.local.layers[0].in_features
    source = torch.Generator().manual_seed(0)
    maps = [[torch.randn(3, channels, 2, 2, generator=source)] * (loss.level + 1) for _ in range(2)]
    z = made_up(3, 6)
    views, grids = [], []
    for v in range(2):
        grid, local = torch.empty(3, 2, 2, 2), torch.empty(3, 2, 2, 5)
        for i in range(3):
            for row, y in enumerate((-0.5, 0.5)):
                for column, x in enumerate((-0.5, 0.5)):
                    grid[i, row, column] = batch.geometry[v][i] @ torch.tensor([x, y, 1.0])
                    local[i, row, column] = loss.local(maps[v][0][i, :, row, column])
        views.append((z[v], local))
        grids.append(grid)
    slow = lightly.loss.VICRegLLoss(alpha=0.6, num_matches=(3, 2))(views, grids)
    got = loss.objective(Out(maps, z=z), batch)
    assert got.ndim == 0 and float(got.detach()) == pytest.approx(float(slow.detach()), rel=1e-5)


@pytest.mark.parametrize("name", ["detcon-s", "detcon-b"])
def test_detcon_contrasts_the_drawn_segments_means(name: str) -> None:
    loss = loss_of(name, segments=3, regions=4, hidden=8, projection=6, temperature=0.3).eval()
    if name == "detcon-b":
        move(loss.teacher_encoder, loss.teacher_projector)
    batch = batch_of(3, side=64)
    masks = loss.partition(batch_of(3, side=64))
    again = batch_of(3, side=64)
    loss.partition(again)
    drawn = [loss.choose(mask, again) for mask in masks]

    def means(encoder: torch.nn.Module, v: int) -> Tensor:
        maps = encoder(batch.views[v])
        fine, deep = maps[loss.level], maps[-1]
        deep = interpolate(deep, size=fine.shape[-2:], mode="bilinear")
        whole = torch.cat([fine, deep], 1)
        return torch.stack(
            [torch.stack([whole[i][:, masks[v][i] == k].mean(1) for k in drawn[v][i]]) for i in range(3)]
        ).flatten(0, 1)

    seen = [loss.projector(means(loss.network.encoder, v)) for v in range(2)]
    if name == "detcon-b":
        seen = [loss.predictor(z) for z in seen]
        seen += [loss.teacher_projector(means(loss.teacher_encoder, v)) for v in range(2)]
    seen = [normalize(each, dim=1).unflatten(0, (3, 4)).detach() for each in seen]
    targets = seen[-2:]
    slow = 0.0
    for v in range(2):
        for i in range(3):
            for m in range(4):
                own = drawn[v][i, m]
                rows = [
                    (float(seen[v][i, m] @ targets[w][j, k]) / 0.3, w != v and j == i and drawn[w][j, k] == own)
                    for w in range(2)
                    for j in range(3)
                    for k in range(4)
                    if not (w == v and j == i and drawn[w][j, k] == own)
                ]
                good = [at for at, (_, positive) in enumerate(rows) if positive]
                found = [log_softmax([score for score, _ in rows], at) for at in good]
                same = int((drawn[v][i] == own).sum())
                slow -= sum(found) / max(1, len(found)) / same / 12
    assert float(loss(batch).detach()) == pytest.approx(slow, **CLOSE)
