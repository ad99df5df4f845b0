"""What the ultrasound methods draw from a video, and the whole way from a pack of videos to a pretrained encoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from usbench_ultrasound.hard import Hard
from usbench_ultrasound.ivpp import Near
from usbench_ultrasound.meta import Held
from usbench_ultrasound.uscl import Three

from usbench import Clip, Video
from usbench.data.feed import Batches, Feed
from usbench.data.pack import Pack
from usbench.draws import seed_globals
from usbench.errors import Interrupted
from usbench.hooks import Registry
from usbench.items import Item
from usbench.train.checkpoint import read
from usbench.train.loop import Compute
from usbench.train.pretrain import Part, build_views, pretrain
from usbench.train.schedule import Schedule

CPU = torch.device("cpu")
METHODS = ("uscl", "meta-uscl", "hico", "ivpp", "ivpp-barlow", "ivpp-vicreg", "ucl-hard")


def video(n: int, *, every: int = 1, fps: float = 10.0, index: int = 1) -> Video:
    frame = every * np.arange(n)
    return Video(index, frame, (frame / fps).astype(np.float32))


def draws(rule: Clip, of: Video, progress: float = 0.0, count: int = 200) -> np.ndarray:
    rng = np.random.default_rng(0)
    found = np.array([rule.frames(of, progress, rng) for _ in range(count)])
    assert found.shape == (count, len(rule.roles)) and found.min() >= 0 and found.max() < len(of)
    return found


@pytest.mark.parametrize("n", [3, 4, 30])
def test_uscl_draws_three_distinct_frames_and_meta_uscl_in_order_of_time(n: int) -> None:
    for rule in (Three(), Held()):
        assert all(len(set(row)) == 3 for row in draws(rule, video(n)).tolist())
    assert (np.diff(draws(Held(), video(n))) > 0).all()
    assert (np.diff(draws(Three(), video(n))) < 0).any()


def test_of_two_frames_the_first_and_the_last_role_get_different_ones_and_of_one_all_get_it() -> None:
    for rule in (Three(), Held()):
        short = draws(rule, video(2))
        assert (short[:, 0] == 0).all() and (short[:, 2] == 1).all()
        assert not draws(rule, video(1)).any()


def test_a_held_out_video_gives_one_frame_three_times() -> None:
    found = draws(Held(every=5), video(9, index=10))
    assert (found == found[:, :1]).all() and set(found[:, 0]) == set(range(9))
    assert (np.diff(draws(Held(every=5), video(9, index=11))) > 0).all()


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.5, 100.0])
@pytest.mark.parametrize("every", [1, 3])
def test_ivpps_frames_are_within_the_time_and_all_that_are_occur(seconds: float, every: int) -> None:
    of = video(12, every=every)
    found = draws(Near(seconds=seconds), of, count=3000)
    allowed = {(i, j) for i in range(12) for j in range(12) if abs(i - j) * every / 10 <= seconds + 1e-6}
    assert {tuple(row) for row in found.tolist()} == allowed


def test_without_times_ivpp_takes_the_frames_numbers_at_the_assumed_rate() -> None:
    timeless = Video(0, 3 * np.arange(20), np.full(20, np.nan))
    found = draws(Near(seconds=0.5, fps=30.0), timeless, count=3000)
    assert np.abs(np.diff(found)).max() == 5 and len(np.unique(found[:, 0])) == 20


@pytest.mark.parametrize("n", [4, 5, 6, 7, 11, 20, 35, 300])
@pytest.mark.parametrize("progress", [0.0, 0.3, 0.5, 0.75, 0.9, 1.0])
def test_ucls_anchor_positive_and_negatives_keep_their_distances(n: int, progress: float) -> None:
    found = draws(Hard(), video(n), progress, count=400)
    anchor, positive, negatives = found[:, 0], found[:, 1], found[:, 2:]
    assert (anchor >= 0.2 * n - 1e-9).all() and (anchor < 0.5 * n).all()
    window = min(3, max(1, n // 10))
    assert (np.abs(positive - anchor) >= 1).all() and (np.abs(positive - anchor) <= window).all()
    away = np.abs(negatives - anchor[:, None])
    share = 1.0 if progress <= 0.5 else (1 + math.cos(math.pi * (2 * progress - 1))) / 2
    low, high = (window + 1 + share * (max(part * n, window + 1) - window - 1) for part in (0.2, 0.4))
    assert (away > window).all() and (away > low - 1).all() and (away <= high + 1e-9).all()
    if n >= 35 and progress <= 0.5:
        assert all(len(set(row)) == 3 for row in negatives.tolist())
        assert away.min() < low + 2 and away.max() > high - 2


def test_ucls_negatives_come_nearer_over_the_second_half() -> None:
    means = []
    for progress in (0.2, 0.5, 0.7, 0.9, 1.0):
        found = draws(Hard(), video(200), progress)
        means.append(np.abs(found[:, 2:] - found[:, :1]).mean())
    assert means[0] == pytest.approx(means[1], rel=0.05) and means[1:] == sorted(means[1:], reverse=True)
    assert means[-1] == 4


@pytest.fixture(scope="module")
def cine(make_pack: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Twelve videos of 1 to 12 frames, two stills; half of the labels unknown."""
    rng = np.random.default_rng(0)
    items = [
        Item(
            f"{v}-{n}", rng.integers(0, 255, (32, 32), np.uint8), video=f"v{v:02d}", frame=n, fps=10.0,
            label=v % 2 if v % 4 < 2 else -1, tag="ab"[v % 2],
        )
        for v in range(12)
        for n in range(v + 1)
    ]  # fmt: skip
    items += [Item(f"still-{n}", rng.integers(0, 255, (32, 32), np.uint8)) for n in range(2)]
    return Pack(make_pack(tmp_path_factory.mktemp("cine") / "cine.h5", iter(items), name="cine", size=32))


def feed_of(pack: Pack, sectors: bool = False) -> Feed:
    return Feed([(pack, np.arange(pack.count))], 32, CPU, sectors=sectors)


@pytest.mark.parametrize("rule", [Three(), Held(), Near(), Hard()], ids=lambda rule: type(rule).__name__)
def test_a_batch_never_leaves_a_video_and_depends_on_the_step_alone(
    rule: Clip, cine: Pack, installed: Registry
) -> None:
    spatial = installed.get("augmentation", "spatial")
    views = build_views((Part(spatial, dict(spatial.options)),), 32, (1, 0))
    feed = feed_of(cine)

    def batches() -> Batches:
        return Batches(feed, views, rule, batch=8 * len(rule.roles), total=9, seed=3)

    one = batches()
    assert one.items == {True: 14, False: 9}[rule.stills]
    for step in (0, 4, 8):
        generator = np.random.default_rng(step)
        items = np.arange(one.items)
        rows = one.frames(items, step, generator)
        assert all(len(set(feed.video[row])) == 1 for row in rows)
        first, again = one(step), batches()(step)
        assert torch.equal(first.frame, again.frame) and torch.equal(first.index, again.index)
        assert all(torch.equal(a, b) for a, b in zip(first.views, again.views, strict=True))
        assert first.rng.random() == again.rng.random()
    assert not torch.equal(one(1).frame, one(2).frame)


class Quiet:
    """Asks to stop once so many steps are done."""

    def __init__(self, at: float = math.inf) -> None:
        self.at, self.done = at, 0

    @property
    def stopping(self) -> bool:
        self.done += 1
        return self.done >= self.at

    def step(self, done: int, total: int, loss: float, rate: float) -> None:
        assert math.isfinite(loss)


def run(pack: Pack, folder: Path, name: str, installed: Registry, watcher: Quiet) -> dict[str, Any]:
    seed_globals(0, "network")
    folder.mkdir(exist_ok=True)
    entry, spatial = installed.get("loss", name), installed.get("augmentation", "spatial")
    return pretrain(
        title=name, folder=folder, part=Part(entry, dict(entry.options)), size=32, seed=0, watcher=watcher,
        steps=(Part(spatial, dict(spatial.options)),), network=installed.get("backbone", "unet-tiny").build(),
        feed_of=lambda sectors: feed_of(pack, sectors), compute=Compute(CPU, "float32"),
        schedule=Schedule(6, 30, 1e-3, 1e-4, 0.1),
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_videos_pretrain_an_encoder_and_a_stop_leaves_no_trace(
    name: str, cine: Pack, installed: Registry, tmp_path: Path
) -> None:
    cost = run(cine, tmp_path / "whole", name, installed, Quiet())
    assert cost["images_seen"] == 6 * 30 and cost["steps"] == 6
    with pytest.raises(Interrupted):
        run(cine, tmp_path / "parts", name, installed, Quiet(at=3))
    run(cine, tmp_path / "parts", name, installed, Quiet())
    whole, parts = (read(tmp_path / each / "weights.safetensors")[0] for each in ("whole", "parts"))
    assert all(torch.equal(value, parts[key]) and torch.isfinite(value).all() for key, value in whole.items())


@pytest.mark.parametrize("name", METHODS)
def test_a_set_of_single_images_is_refused_before_anything_runs(
    name: str, make_pack: Callable[..., Path], tmp_path: Path, usbench: Callable[..., Any], tiny: list[str]
) -> None:
    rng = np.random.default_rng(0)
    stills = (
        Item(str(n), rng.integers(0, 255, (64, 64), np.uint8), mask=np.eye(64, dtype=bool), label=n % 2, patient=str(n))
        for n in range(12)
    )
    pack = make_pack(tmp_path / "stills.h5", stills, name="stills")
    tiny = [*tiny]
    tiny[tiny.index("--data") + 1] = str(pack)
    said = usbench("run", "--loss", name, *tiny, "--out", tmp_path / "runs")
    assert said.code == 2 and f"loss '{name}' needs video, which 'stills' does not have" in said.one_sentence()
    assert not (tmp_path / "runs").exists()
