"""Probes: the read-outs are scikit-learn's used plainly, and the network that is read stays as it is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn
from usbench_classify.probe import Probe, Reader

from usbench.contracts import Network, pooled
from usbench.data.feed import Feed
from usbench.data.pack import Pack
from usbench.evaluate.probe import PENALTY, area_model, area_skill
from usbench.hooks import Registry
from usbench.train import checkpoint
from usbench.train.finetune import fit
from usbench.train.loop import Compute
from usbench.train.networks import build_network
from usbench.train.passes import clean_statistics, plain_images

CPU = Compute(torch.device("cpu"), "float32")
CLASSES = ("benign", "malignant", "normal")


def features(count: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.arange(count) % classes
    return (rng.normal(size=(count, 10)) + 1.5 * np.eye(10)[label] + 3).astype(np.float32), label


def reader(given: np.ndarray, label: np.ndarray, *, classes: int = 3, k: int = 20) -> Reader:
    probe = Probe(k)
    probe.classes = tuple("abcdef"[:classes])
    made = Reader(nn.Identity(), classes, k)
    probe.fit(made, torch.from_numpy(given), torch.from_numpy(label))
    return made


@pytest.mark.parametrize("classes", [2, 3])
def test_the_linear_read_out_is_scikit_learns_logistic_regression(classes: int) -> None:
    (x, y), (other, _) = features(90, 0, classes), features(40, 1, classes)
    scaler = StandardScaler().fit(x.astype(float))
    model = LogisticRegression(C=PENALTY, max_iter=300).fit(scaler.transform(x.astype(float)), y)
    expected = model.predict_proba(scaler.transform(other.astype(float)))
    got = reader(x, y, classes=classes).read(torch.from_numpy(other))[:, 0].numpy()
    assert got == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("count", "k"), [(90, 20), (90, 1), (9, 20)])
def test_the_neighbours_are_scikit_learns_by_cosine_and_k_is_capped(count: int, k: int) -> None:
    (x, y), (other, _) = features(count, 0), features(40, 1)
    model = KNeighborsClassifier(min(k, count), metric="cosine").fit(x.astype(float), y)
    got = reader(x, y, k=k).read(torch.from_numpy(other))[:, 1].numpy()
    assert got == pytest.approx(model.predict_proba(other.astype(float)), abs=1e-6)
    assert (got.argmax(1) == model.predict(other.astype(float))).all()


def test_a_class_that_no_image_of_the_fraction_has_gets_no_probability() -> None:
    x, y = features(60, 0, 2)
    found = reader(x, 2 * y, classes=4).read(torch.from_numpy(x))
    assert found.shape == (60, 2, 4) and found.isfinite().all()
    assert (found[:, :, [1, 3]] == 0).all()
    assert found.sum(2).numpy() == pytest.approx(np.ones((60, 2)), abs=1e-5)


def test_a_number_of_neighbours_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="k is 0: at least 1"):
        Probe(0)


@pytest.fixture
def network(installed: Registry) -> Network:
    return build_network(installed.get("backbone", "unet-tiny"), {}, 32, seed=0)


@pytest.fixture
def feed(tiny_pack: Path) -> Feed:
    return Feed([(Pack(tiny_pack), np.arange(40))], 32, CPU.device, classes=CLASSES)


def test_statistics_are_those_of_clean_images_and_no_parameter_moves(network: Network, feed: Feed) -> None:
    norm = next(m for m in network.encoder.modules() if isinstance(m, nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    hook = norm.register_forward_hook(lambda module, given, made: seen.append(given[0].detach().clone()))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    clean_statistics(network, feed, CPU)
    hook.remove()
    assert norm.running_mean is not None and not norm.training and norm.momentum == 0.1
    assert norm.running_mean.numpy() == pytest.approx(seen[0].mean((0, 2, 3)).numpy(), abs=1e-5)
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())


@pytest.mark.parametrize("count", [65, 129, 150])
def test_every_image_counts_alike_in_the_statistics_whatever_the_batches(network: Network, count: int) -> None:
    class Numbered:
        """Images of one value each; the last one shines."""

        size = 32

        def __init__(self) -> None:
            self.images, self.count = torch.zeros(count, 1, 32, 32, dtype=torch.uint8), count
            self.images[-1] = 255

        def take(self, plane: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
            return plane[rows]

        def in_turn(self, rows: np.ndarray, batch: int, *planes: object) -> Iterator[np.ndarray]:
            return (rows[start : start + batch] for start in range(0, len(rows), batch))

    norm = next(m for m in network.encoder.modules() if isinstance(m, nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    hook = norm.register_forward_hook(lambda module, given, made: seen.append(given[0].detach().clone()))
    clean_statistics(network, Numbered(), CPU)  # type: ignore[arg-type]
    hook.remove()
    every = torch.cat(seen)
    assert len(every) == count and min(map(len, seen)) > 1 and norm.running_mean is not None
    assert norm.running_mean.numpy() == pytest.approx(every.mean((0, 2, 3)).numpy(), abs=1e-5)


def test_a_fit_reads_frozen_features_and_keeps_what_it_learnt_as_tensors(
    network: Network, feed: Feed, tmp_path: Path
) -> None:
    probe = Probe()
    probe.classes = CLASSES
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    facts = fit(
        folder=tmp_path, network=network, protocol=probe, feed=feed, inner=feed, compute=CPU, seed=0, size=32
    )  # fmt: skip
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    assert facts["steps"] == facts["images_seen"] == 0 and facts["selection"] == "none"
    assert 1 / 3 < facts["linear_balanced_accuracy_inner"] <= 1
    weights, _ = checkpoint.read(tmp_path / "weights.safetensors")
    with torch.inference_mode():
        plain = pooled(network.eval().encoder(plain_images(feed, np.arange(40), 32))).double().numpy()
    scaler = StandardScaler().fit(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=PENALTY, max_iter=300).fit(scaler.transform(plain), feed.label.numpy())
    for name, expected in (("coef", model.coef_), ("mean", scaler.mean_), ("scale", scaler.scale_)):
        assert weights[name].numpy() == pytest.approx(expected, abs=1e-4)
    assert weights["bank"].shape == (40, network.dim) and (weights["label"] == feed.label).all()


def test_the_read_out_of_area_is_r_squared_an_image_at_a_time() -> None:
    rng = np.random.default_rng(0)
    (x, _), (other, _) = features(90, 0), features(40, 1)
    weights = rng.normal(size=x.shape[1])
    share, truth = (0.1 + 0.01 * (f @ weights) + rng.normal(scale=0.02, size=len(f)) for f in (x, other))
    model = area_model(x, share)
    found = area_skill(other, truth, model)
    assert found.mean() == pytest.approx(r2_score(truth, model.predict(other)))
    assert found.mean() > 0.3
