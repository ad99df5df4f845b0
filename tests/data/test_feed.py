"""The feed: every image once a lap, batches from the step alone, and shrinking that does not alias."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from usbench.contracts import Clip, Image, Video
from usbench.data.feed import Batches, Feed, order, sector_boxes
from usbench.data.pack import HEADROOM, Pack
from usbench.data.planes import shrink
from usbench.errors import UsbenchError
from usbench.hooks import Registry
from usbench.items import Item
from usbench.train.pretrain import Part, build_views
from usbench.views import Views

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pack(tiny_pack: Path) -> Pack:
    return Pack(tiny_pack)


@pytest.fixture
def views(installed: Registry) -> Views:
    spatial = installed.get("augmentation", "spatial")
    return build_views((Part(spatial, dict(spatial.options)),), 32, (2, 0))


def feed_of(pack: Pack, size: int = 32, **more: bool) -> Feed:
    return Feed([(pack, np.arange(pack.count))], size, CPU, **more)


@pytest.mark.parametrize(("count", "batch"), [(10, 3), (7, 7), (5, 12), (40, 8), (1, 4)])
def test_each_lap_is_a_permutation(count: int, batch: int) -> None:
    steps = count * 3
    drawn = np.concatenate([order(count, batch, step, 0, "pretrain") for step in range(steps)])
    for lap in range(len(drawn) // count):
        assert sorted(drawn[lap * count : (lap + 1) * count]) == list(range(count))


def test_the_order_of_a_step_needs_no_step_before_it() -> None:
    forwards = [order(40, 8, step, 3, "pretrain").tolist() for step in range(12)]
    backwards = [order(40, 8, step, 3, "pretrain").tolist() for step in reversed(range(12))]
    assert forwards == backwards[::-1]


def test_laps_seeds_and_purposes_have_orders_of_their_own() -> None:
    orders = [order(40, 40, 0, 0, "pretrain"), order(40, 40, 1, 0, "pretrain"), order(40, 40, 0, 1, "pretrain")]
    orders.append(order(40, 40, 0, 0, "finetune"))
    assert len({tuple(o) for o in orders}) == 4


def test_shrinking_by_area_does_not_alias() -> None:
    """Stripes finer than the target are grey after it; taking every fourth pixel would leave them black or white."""
    stripes = np.tile((np.arange(256) % 2 * 255).astype(np.uint8), (1, 256, 1))
    small = shrink(stripes, 64).float()
    assert small.shape == (1, 1, 64, 64) and (small - 127.5).abs().max() <= 1
    waves = 127.5 + 127.5 * np.cos(2 * np.pi * 60 / 256 * np.arange(256))
    found = shrink(np.tile(waves.round().astype(np.uint8), (1, 256, 1)), 64).float()
    assert found.std() < 0.25 * waves.std()


def test_shrinking_keeps_the_mean_and_leaves_an_image_of_the_right_size_alone() -> None:
    planes = np.random.default_rng(0).integers(0, 256, (3, 96, 96), np.uint8)
    assert shrink(planes, 40).float().mean().item() == pytest.approx(planes.mean(), abs=0.5)
    assert np.array_equal(shrink(planes, 96)[:, 0].numpy(), planes)


def test_the_device_copy_is_at_most_a_quarter_larger_than_the_run_and_never_larger_than_the_pack(pack: Pack) -> None:
    assert feed_of(pack, 32).images.shape == (40, 1, round(HEADROOM * 32), 40)
    assert feed_of(pack, 64).images.shape == (40, 1, 64, 64)
    assert feed_of(pack, 256).images.shape == (40, 1, 64, 64)
    assert feed_of(pack, 64).images.dtype == torch.uint8


def test_the_feed_holds_the_packs_rows_in_the_order_asked_for(pack: Pack) -> None:
    rows = np.array([5, 30, 2])
    feed = Feed([(pack, rows)], 64, CPU, masks=True, sectors=True)
    assert np.array_equal(feed.images[:, 0].numpy(), pack.images[rows])
    assert np.array_equal(feed.mask[:, 0].numpy() == 255, pack.plane("mask", rows))
    assert feed.sector.all()
    assert feed.label.tolist() == pack.table.label[rows].tolist()
    assert np.array_equal(feed.take(feed.images, np.array([2, 0])), feed.images[[2, 0]])


def test_two_packs_stand_behind_each_other_and_their_videos_stay_apart(pack: Pack, tiny_target: Path) -> None:
    other = Pack(tiny_target)
    feed = Feed([(pack, np.arange(4)), (other, np.arange(4))], 64, CPU)
    assert feed.count == 8 and np.array_equal(feed.images[4:, 0].numpy(), other.images[:4])
    assert pack.table.video[0] == other.table.video[0] != ""
    assert feed.video[0] == feed.video[1] >= 0 and feed.video[4] == feed.video[5] >= 0
    assert feed.video[0] != feed.video[4]
    assert feed.video[2] == -1


def test_a_sectors_box_is_where_it_lies() -> None:
    sector = np.zeros((3, 10, 20), np.bool_)
    sector[0, 2:5, 10:20] = True
    sector[1] = True
    boxes = sector_boxes(sector)
    assert np.allclose(boxes, [[0, -0.6, 1, 0], [-1, -1, 1, 1], [-1, -1, 1, 1]])  # an empty sector is the whole image


def test_the_feed_knows_the_boxes_of_letter_boxed_images(make_pack: Callable[..., Path], tmp_path: Path) -> None:
    wide = (Item(str(n), np.full((32, 64), 9, np.uint8)) for n in range(2))
    feed = feed_of(Pack(make_pack(tmp_path / "wide.h5", wide, name="wide")), 64)
    assert np.allclose(feed.boxes, [[-1, -0.5, 1, 0.5]] * 2)


def test_a_batch_depends_on_seed_and_step_alone(pack: Pack, views: Views) -> None:
    def batches(seed: int) -> Batches:
        return Batches(feed_of(pack), views, Image(), batch=8, total=20, seed=seed)

    one, other = batches(0), batches(0)
    for step in range(3):
        one(step)
    fresh, later = other(7), one(7)
    assert torch.equal(fresh.index, later.index)
    assert all(torch.equal(a, b) for a, b in zip(fresh.views, later.views, strict=True))
    assert not torch.equal(fresh.views[0], one(8).views[0]) and not torch.equal(fresh.views[0], batches(1)(7).views[0])
    assert fresh.rng.random() == later.rng.random()


def test_a_batch_says_what_it_is_made_of(pack: Pack, views: Views) -> None:
    batch = Batches(feed_of(pack), views, Image(), batch=8, total=5, seed=0)(4)
    assert [view.shape for view in batch.views] == [(8, 1, 32, 32)] * 2
    assert [matrix.shape for matrix in batch.geometry] == [(8, 2, 3)] * 2
    table = pack.table.iloc[batch.index.numpy()]
    assert batch.label.tolist() == table.label.tolist()
    assert batch.frame.tolist() == [[frame] for frame in table.frame]
    assert (batch.video >= 0).tolist() == (table.video != "").tolist()
    assert (batch.step, batch.total, batch.progress) == (4, 5, 1.0)
    assert not torch.equal(batch.views[0], batch.views[1])


def test_a_clip_is_frames_of_one_video_in_order_of_time(pack: Pack, views: Views) -> None:
    batches = Batches(feed_of(pack), views, Clip(("first", "second")), batch=8, total=5, seed=0)
    filmed = pack.table.video[pack.table.video != ""].nunique()
    assert batches.items == filmed == 5
    for step in range(5):
        batch = batches(step)
        assert len(batch.views) == 4 and {view.shape[0] for view in batch.views} == {4}  # 2 roles × 2 views, 4 clips
        assert (batch.frame[:, 0] < batch.frame[:, 1]).all() and (batch.time[:, 0] < batch.time[:, 1]).all()
        assert (batch.video >= 0).all()


def test_a_short_video_repeats_its_frames(pack: Pack, views: Views) -> None:
    batch = Batches(feed_of(pack), views, Clip(("a", "b", "c")), batch=9, total=5, seed=0)(0)
    assert [sorted(set(frames)) for frames in batch.frame.tolist()] == [[0, 1]] * 3
    assert (batch.frame.diff(dim=1) >= 0).all()


def test_the_views_of_a_role_come_from_its_frame(pack: Pack, installed: Registry) -> None:
    plain = installed.get("augmentation", "none")
    still = build_views((Part(plain, dict(plain.options)),), 64, (2, 0))
    feed = feed_of(pack, 64)
    batch = Batches(feed, still, Clip(("a", "b")), batch=4, total=5, seed=0)(0)
    first_a, second_a, first_b, second_b = batch.views
    assert torch.equal(first_a, second_a) and torch.equal(first_b, second_b) and not torch.equal(first_a, first_b)
    for clip, video in enumerate(batch.video):
        frames = np.flatnonzero(feed.video == int(video))
        for role, view in enumerate((first_a, first_b)):
            image = feed.images[frames[role], 0].float()
            assert np.corrcoef(image.flatten(), view[clip, 0].flatten())[0, 1] > 0.999


def test_clips_without_a_video_are_refused(pack: Pack, views: Views) -> None:
    stills = np.flatnonzero(pack.table.video.to_numpy() == "")
    with pytest.raises(UsbenchError, match="no image of the pretraining data belongs to a video"):
        Batches(Feed([(pack, stills)], 32, CPU), views, Clip(("a", "b")), batch=4, total=5, seed=0)


def cine(tmp_path: Path, make_pack: Callable[..., Path], frames: dict[str, int], **known: float) -> Pack:
    """Videos of so many frames; the name "" is stills."""
    items = (
        Item(f"{v}-{n}", np.full((16, 16), 10 * n, np.uint8), video=v, frame=n if v else -1, **known)
        for v, count in frames.items()
        for n in range(count)
    )
    return Pack(make_pack(tmp_path / "cine.h5", items, name="cine", size=16))


def test_a_rule_draws_the_frames_and_is_told_the_video_and_the_progress(pack: Pack, views: Views) -> None:
    told = []

    class Backwards(Clip):
        def frames(self, video: Video, progress: float, rng: np.random.Generator) -> np.ndarray:
            told.append((video, progress))
            return np.array([1, 0, 1])

    batches = Batches(feed_of(pack), views, Backwards(("a", "b", "c")), batch=9, total=5, seed=0)
    batch = batches(3)
    assert batch.frame.tolist() == [[1, 0, 1]] * 3
    assert [video.index for video, _ in told] == batch.index.tolist() and {p for _, p in told} == {0.75}
    for video, _ in told:
        assert len(video) == 2 and video.frame.tolist() == [0, 1] and video.time == pytest.approx([0, 0.1])


@pytest.mark.parametrize("wrong", [[0], [0, 2], [-1, 0]])
def test_a_rule_that_leaves_its_video_is_named(pack: Pack, views: Views, wrong: list[int]) -> None:
    class Astray(Clip):
        def frames(self, video: Video, progress: float, rng: np.random.Generator) -> np.ndarray:
            return np.array(wrong)

    with pytest.raises(UsbenchError, match=r"Astray\.frames drew .* from a video of 2 frames"):
        Batches(feed_of(pack), views, Astray(("a", "b")), batch=4, total=5, seed=0)(0)


def test_frames_at_random_are_distinct_and_in_any_order() -> None:
    video, rng = Video(0, np.arange(5), np.full(5, np.nan)), np.random.default_rng(0)
    drawn = np.array([Clip(("a", "b", "c"), ordered=False).frames(video, 0.0, rng) for _ in range(300)])
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    assert {tuple(row) for row in drawn[:, :2].tolist()} == {(i, j) for i in range(5) for j in range(5) if i != j}
    short = Video(0, np.arange(2), np.full(2, np.nan))
    assert {tuple(Clip(("a", "b", "c"), ordered=False).frames(short, 0.0, rng)) for _ in range(20)} <= {
        (0, 0, 1),
        (0, 1, 1),
    }


def test_stills_are_videos_of_one_frame_where_a_method_wants_them(
    make_pack: Callable[..., Path], tmp_path: Path, views: Views
) -> None:
    feed = feed_of(cine(tmp_path, make_pack, {"": 3, "v": 2}), 16)
    batches = Batches(feed, views, Clip(("a", "b"), stills=True), batch=8, total=5, seed=0)
    assert batches.items == 4
    batch = batches(0)
    still = batch.video < 0
    assert still.sum() == 3 and (batch.frame[still] == -1).all()
    assert batch.frame[~still].tolist() == [[0, 1]]
    assert Batches(feed, views, Clip(("a", "b")), batch=8, total=5, seed=0).items == 1


def test_short_videos_stay_out_and_too_short_ones_are_counted(
    make_pack: Callable[..., Path], tmp_path: Path, views: Views
) -> None:
    feed = feed_of(cine(tmp_path, make_pack, {"": 2, "v": 2, "w": 5, "x": 4}), 16)
    batches = Batches(feed, views, Clip(("a", "b"), least=4, stills=True), batch=8, total=5, seed=0)
    assert [len(video) for video in batches.clips] == [5, 4]
    with pytest.raises(UsbenchError, match=r"at least 6 frames, and 0 of the 3 .* \(the longest has 5\)"):
        Batches(feed, views, Clip(("a", "b"), least=6), batch=8, total=5, seed=0)


def test_a_time_that_is_not_known_comes_from_the_frame_rate(make_pack: Callable[..., Path], tmp_path: Path) -> None:
    feed = feed_of(cine(tmp_path, make_pack, {"": 1, "v": 3}, fps=10.0), 16)
    assert np.isnan(feed.time[0]) and feed.time[1:] == pytest.approx([0, 0.1, 0.2])


def test_frames_without_numbers_count_in_order_of_time(make_pack: Callable[..., Path], tmp_path: Path) -> None:
    times = (0.0, 1.0, 0.1, 1.1, 0.2)
    items = (Item(str(n), np.zeros((16, 16), np.uint8), video="v", frame=-1, time=t) for n, t in enumerate(times))
    feed = feed_of(Pack(make_pack(tmp_path / "p.h5", items, name="p", size=16)), 16)
    assert feed.frame.tolist() == [0, 3, 1, 4, 2] and feed.time == pytest.approx(times)


def test_frames_without_numbers_count_in_the_order_of_the_pack(make_pack: Callable[..., Path], tmp_path: Path) -> None:
    items = (Item(str(n), np.full((16, 16), n, np.uint8), video="vw"[n % 2], frame=-1) for n in range(6))
    feed = feed_of(Pack(make_pack(tmp_path / "p.h5", items, name="p", size=16)), 16)
    assert feed.frame.tolist() == [0, 0, 1, 1, 2, 2]
