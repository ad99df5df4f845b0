"""Lightly's methods beside their values: schedules, memories, geometry, options."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from lightly.models.modules.heads import DINOProjectionHead
from lightly_parts import NAMES, batch_of, loss_of, made_up
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn.functional import normalize
from usbench_lightly.clusters import dino_head
from usbench_lightly.kmeans import kmeans
from usbench_lightly.maps import map_of_stride, positions

from usbench import Loss, Out
from usbench.errors import UsbenchError
from usbench.hooks import registry
from usbench.train import checkpoint
from usbench.train.loop import Compute
from usbench.train.pretrain import Part, build_loss
from usbench.train.schedule import Schedule
from usbench.views import between


@pytest.mark.parametrize("name", NAMES)
def test_each_method_is_registered_with_its_paper_and_is_no_reconstruction(name: str) -> None:
    entry = registry().get("loss", name)
    assert entry.plugin == "lightly" and not entry.reconstruction
    assert "https://" in entry.reference


def train(loss: Loss, step: int, total: int, count: int = 4) -> None:
    views = loss.views[0] + loss.views[1]
    batch = batch_of(count, views, step=step, total=total, seed=step)
    torch.manual_seed(step)
    optimizer = torch.optim.SGD([p for p in loss.parameters() if p.requires_grad], lr=0.1)
    loss.step(batch, optimizer)


@pytest.mark.parametrize(("name", "part"), [("swav", "prototypes"), ("dino", "projector.last_layer")])
def test_the_last_layer_stays_for_the_first_share_of_the_training(name: str, part: str) -> None:
    loss = loss_of(name, freeze=0.5, local_views=1)
    weight = next(loss.get_submodule(part).parameters())
    loss.before_step(batch_of(2))
    for step, moves in ((0, False), (4, False), (6, True)):
        before = weight.detach().clone()
        train(loss, step, total=11)
        assert torch.allclose(weight, before, atol=1e-6) != moves
        loss.before_step(batch_of(2))  # so that a normalisation alone is no movement


def test_dinos_head_is_lightlys_with_the_lengths_of_the_last_layers_rows_held_at_one() -> None:
    ours = dino_head(6, 8, 4, 5, freeze=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = DINOProjectionHead(6, 8, 4, 5, batch_norm=True)
    theirs.layers.load_state_dict(ours.layers.state_dict())
    original = ours.last_layer.parametrizations.weight.original
    with torch.no_grad():
        theirs.last_layer.weight_v.copy_(original)
    (x,) = made_up(7, 6, views=1)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert sum(p.requires_grad for p in theirs.last_layer.parameters()) == len([*ours.last_layer.parameters()])


def test_smogs_groups_are_made_anew_of_past_features_every_share_of_the_training_once_there_are_enough() -> None:
    loss = loss_of("smog", groups=3, bank=24, projection=4, hidden=8, reset=0.2)
    changed = []
    for step in range(10):
        before = loss.groups.group_features.clone()
        loss.before_step(batch_of(4, step=step, total=10))
        if changed_now := not torch.equal(before, loss.groups.group_features):
            changed.append(step)
        if changed_now:
            _, centres = kmeans(loss.bank.bank[None], 3, np.random.default_rng(1))
            assert torch.equal(loss.groups.group_features, normalize(centres[0], dim=1))
        z = [view.requires_grad_() for view in made_up(4, 4, seed=step)]
        loss.objective(Out([], z=z, p=z, t=z), batch_of(4))
    assert changed == [4, 6, 8]  # 8 features a step: the bank of 24 is full at step 3; every second step is a time


def test_what_a_method_remembers_is_in_its_checkpoint() -> None:
    for name, bank in (("nnclr", "neighbour"), ("swav", "banks.0"), ("smog", "bank"), ("densecl", "bank")):
        loss = loss_of(name, **({"local_views": 0} if name == "swav" else {}))
        assert {f"{bank}.bank", f"{bank}.bank_ptr"} <= checkpoint.tensors_of(loss).keys()
    assert "criterion.C" in checkpoint.tensors_of(loss_of("tico"))


def test_swav_trains_without_local_views_and_without_a_queue() -> None:
    loss = loss_of("swav", local_views=0, queue=0)
    assert loss.views == (2, 0)
    train(loss, 0, total=10)


def test_kmeans_is_scikit_learns_on_each_set() -> None:
    points = torch.cat(made_up(40, 3, views=2)).view(2, 40, 3)
    found, centres = kmeans(points, 4, np.random.default_rng(0), rounds=50)
    start = np.random.default_rng(0).random((2, 40)).argsort(1)[:, :4]
    for each in range(2):
        reference = KMeans(4, init=points[each, start[each]].numpy(), n_init=1, max_iter=50, tol=0)
        reference.fit(points[each].numpy())
        assert np.array_equal(found[each].numpy(), reference.labels_)
        assert np.allclose(centres[each].numpy(), reference.cluster_centers_, atol=1e-5)


def test_a_position_lies_where_the_geometry_of_its_view_says() -> None:
    batch = batch_of(2)
    inside = positions(batch.geometry[0], 3)
    to_view = between(torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]).expand(2, 2, 3), batch.geometry[0])
    back = inside @ to_view[:, :, :2].transpose(1, 2) + to_view[:, None, :, 2]
    cells = [(x, y) for y in (-2 / 3, 0, 2 / 3) for x in (-2 / 3, 0, 2 / 3)]  # row by row, as a map is flattened
    assert torch.allclose(back, torch.tensor(cells).expand(2, 9, 2), atol=1e-5)


def test_both_views_share_detcons_segments() -> None:
    loss, batch = loss_of("detcon-s", segments=4), batch_of(3, side=64)
    batch.views[1], batch.geometry[1] = batch.views[0].flip(-1), batch.geometry[0].clone()
    batch.geometry[1][:, 0, 0] *= -1  # the second view is the first, mirrored
    first, second = loss.partition(batch)
    assert torch.equal(first, second.flip(-1))
    assert all(len(mask.unique()) == 4 for mask in first)


def test_no_segment_runs_over_the_border_of_a_bright_lesion() -> None:
    loss, batch = loss_of("detcon-s"), batch_of(4, side=64)
    for view in batch.views:
        view.zero_()[:, :, 16:48, 16:48] = 3.0
    for mask in loss.partition(batch):
        inside = torch.zeros(8, 8, dtype=torch.bool)
        inside[2:6, 2:6] = True
        assert not any(set(m[inside].tolist()) & set(m[~inside].tolist()) for m in mask)


def test_detcon_draws_only_segments_that_the_view_shows() -> None:
    loss, batch = loss_of("detcon-s", segments=5, regions=40), batch_of(2)
    mask = torch.tensor([[[1, 1], [4, 1]], [[0, 2], [3, 0]]])
    drawn = loss.choose(mask, batch)
    assert drawn.shape == (2, 40)
    assert [set(row.tolist()) for row in drawn] == [{1, 4}, {0, 2, 3}]


def test_a_teacher_has_the_dense_head_too() -> None:
    loss = loss_of("densecl")
    student, teacher = loss.projector.dense, loss.teacher_projector.dense
    with torch.no_grad():
        for p in student.parameters():
            p += 1.0
    before = [p.clone() for p in teacher.parameters()]
    loss.update_teacher(0.0)
    moved: list[Tensor] = [p - old for p, old in zip(teacher.parameters(), before, strict=True)]
    assert all(torch.allclose(step, torch.full_like(step, 0.01), atol=1e-5) for step in moved)


def test_no_dead_dimension_stops_the_whitening() -> None:
    loss = loss_of("w-mse", window=8, projection=3)
    z = [view * torch.tensor([1.0, 1.0, 0.0]) for view in made_up(8, 3)]
    assert torch.isfinite(loss.objective(Out([], z=z), batch_of(8)))


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("barlow-twins", {"lambda_param": -1.0}, "lambda_param is -1.0: not below 0"),
        ("dcl", {"temperature": 0.0}, "temperature is 0.0: above 0"),
        ("dclw", {"sigma": 0.0}, "sigma is 0.0: above 0"),
        ("macl", {"alpha": 1.5}, r"alpha is 1.5: a share, in \[0, 1\]"),
        ("directclr", {"share": 1.5}, "share is 1.5: a share"),
        ("directclr", {"share": 0.0}, "share is 0.0: above 0"),
        ("w-mse", {"window": 16}, "window is 16: at least twice the projection of 32"),
        ("frossl", {"crops": 1}, "crops is 1: at least 2"),
        ("emp-ssl", {"inv_coef": -1.0}, "inv_coef is -1.0: not below 0"),
        ("emp-ssl", {"tcr_eps": 0.0}, "tcr_eps is 0.0: above 0"),
        ("lejepa", {"lambda_param": 2.0}, "lambda_param must be in the unit interval"),
        ("lejepa", {"local_views": 0}, "local_views is 0: at least 1"),
        ("visreg", {"num_slices": 0}, "num_slices is 0: above 0"),
        ("simsiam", {"hidden": 0}, "hidden is 0: above 0"),
        ("fastsiam", {"crops": 1}, "crops is 1: at least 2"),
        ("nnclr", {"queue": 0}, "queue is 0: above 0"),
        ("tico", {"beta": 1.5}, "beta is 1.5: a share"),
        ("tico", {"rho": -1.0}, "rho is -1.0: not below 0"),
        ("mmcr", {"lmda": -1.0}, "lmda is -1.0: not below 0"),
        ("swav", {"queue": -1}, "queue is -1: not below 0"),
        ("swav", {"freeze": 2.0}, "freeze is 2.0: a share"),
        ("dino", {"teacher_temperature": (0.0, 0.1)}, "teacher_temperature is"),
        ("dino", {"centre_momentum": 1.0}, r"centre_momentum is 1.0: in \[0, 1\)"),
        ("smog", {"bank": 8}, "bank is 8: at least the number of groups, 128"),
        ("densecl", {"dense": 1.5}, "dense is 1.5: a share"),
        ("densecl", {"dense_stride": 7}, r"dense_stride is 7: the encoder's maps have the strides \[1, 2, 4, 8, 16"),
        ("vicregl", {"matches": (0, 4)}, "matches is"),
        ("detcon-s", {"segments": 1}, "segments is 1: at least 2"),
        ("detcon-b", {"regions": 0}, "regions is 0: above 0"),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsbenchError, match=rf"loss '{name}' refuses .*: {sentence}"):
        loss_of(name, **options)


def test_a_batch_below_wmses_window_is_refused_with_the_window() -> None:
    entry, network = registry().get("loss", "w-mse"), registry().get("backbone", "unet-tiny").build()
    part = Part(entry, {**entry.options, "window": 96})
    with pytest.raises(UsbenchError, match="'w-mse' needs 96 items a batch and 64 images give 64"):
        build_loss(part, network, Schedule(10, 64, 1e-3, 0.0, 0.0), Compute(torch.device("cpu"), "float32"), 0)


def test_looking_for_a_map_leaves_the_network_as_it_was() -> None:
    network = registry().get("backbone", "unet-tiny").build().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert map_of_stride(network, 16) == (4, 192)
    assert network.training and isinstance(network, nn.Module)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
