"""A feed beyond the memory there is for it gives the same bytes, from files, and gathers the next batch meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from usbench.contracts import Batch, Clip, Image
from usbench.data import feed as feed_module
from usbench.data import planes, room
from usbench.data.feed import Batches, Feed, order
from usbench.data.known import _numbered
from usbench.data.pack import Pack
from usbench.data.stream import AHEAD, Streamed
from usbench.errors import UsbenchError
from usbench.evaluate.shifts import corrupt
from usbench.hooks import Registry
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.store import Store
from usbench.spec import resolve
from usbench.train.pretrain import Part, build_views

CPU = torch.device("cpu")
HELD, NONE = "1000", "0"  # MiB


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`memory(MIB)`: what feeds that are made from now on may hold."""
    return lambda mib: monkeypatch.setenv(room.SETTING, mib)


@pytest.fixture
def packs(tiny_pack: Path, make_scans: Any, make_pack: Any, tmp_path: Path) -> list[tuple[Pack, np.ndarray]]:
    """Two packs of different sizes, and some rows of each in an order of their own."""
    small = Pack(make_pack(tmp_path / "small.h5", make_scans(6, size=48, seed=3), name="small", size=48))
    rng = np.random.default_rng(0)
    return [(pack, rng.permutation(pack.count)[: pack.count - 3]) for pack in (Pack(tiny_pack), small)]


@pytest.mark.parametrize("size", [24, 45, 64])
def test_a_streamed_feed_gives_the_bytes_of_a_held_one(size: int, packs: Any, memory: Callable[[str], None]) -> None:
    memory(HELD)
    held = Feed(packs, size, CPU, masks=True, sectors=True)
    memory(NONE)
    streamed = Feed(packs, size, CPU, masks=True, sectors=True)
    assert streamed.streams and not held.streams
    rows = np.random.default_rng(1).integers(0, held.count, 70)
    for name in ("images", "sector", "mask"):
        assert isinstance(getattr(streamed, name), Streamed)
        taken = streamed.take(getattr(streamed, name), rows)
        assert torch.equal(taken, held.take(getattr(held, name), rows)) and taken.dtype == torch.uint8
        assert torch.equal(taken, getattr(held, name)[torch.from_numpy(rows)])
    assert np.array_equal(streamed.boxes, held.boxes)
    assert np.array_equal(Feed(packs, size, CPU).boxes, held.boxes)


def test_what_is_shown_of_images_is_streamed_too(tiny_pack: Path, memory: Callable[[str], None]) -> None:
    def read(pack: Pack, rows: np.ndarray) -> np.ndarray:
        return corrupt(
            pack.images[rows], pack.plane("sector", rows), pack.table.name[rows].tolist(), "gain-up", 3, seed=0
        )

    pack, rows = Pack(tiny_pack), np.array([7, 3, 12])
    memory(HELD)
    held = Feed([(pack, rows)], 32, CPU, read=read)
    memory(NONE)
    streamed = Feed([(pack, rows)], 32, CPU, read=read)
    assert torch.equal(streamed.take(streamed.images, np.array([2, 0])), held.images[[2, 0]])


def same(one: Batch, other: Batch) -> bool:
    """Whether all tensors of two batches are the same, and their generators in the same state."""
    lists = [(getattr(one, k), getattr(other, k)) for k in ("views", "geometry", "sectors")]
    pairs = [pair for first, second in lists for pair in zip(first, second, strict=True)]
    pairs += [(getattr(one, k), getattr(other, k)) for k in ("index", "label", "video", "frame", "time", "tag")]
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs) and one.rng.random() == other.rng.random()


@pytest.mark.parametrize("item", [Image(), Clip(("a", "b")), Clip(("a", "b", "c"), ordered=False, stills=True)])
def test_batches_are_the_same_from_memory_and_from_files_in_whatever_order(
    item: Image | Clip, packs: Any, installed: Registry, memory: Callable[[str], None]
) -> None:
    recipe = installed.get("augmentation", "freq")
    views = build_views((Part(recipe, dict(recipe.options)),), 32, (2, 1))
    made = {}
    for mib in (HELD, NONE):
        memory(mib)
        feed = Feed(packs, 32, CPU, sectors=True)
        batches = Batches(feed, views, item, batch=12, total=6, seed=0)
        made[mib] = [batches(step) for step in (0, 1, 2, 2, 3, 5, 0, 4)]
    assert all(same(*pair) for pair in zip(made[HELD], made[NONE], strict=True))


class Quiet:
    """Watches a run and says nothing."""

    stopping = False

    def begin(self, stage: Any, place: int, total: int) -> None: ...

    def step(self, stage: Any, done: int, total: int, loss: float, rate: float) -> None: ...

    def end(self, stage: Any) -> None: ...


def test_a_whole_run_from_files_has_the_keys_and_the_bytes_of_one_from_memory(
    installed: Registry, tiny_settings: dict[str, Any], packs: Any, tmp_path: Path, memory: Callable[[str], None]
) -> None:
    """Pretraining, fine-tuning with inner validation, and tests, also on corrupted images: two packs, shrunk."""
    asked = {
        "loss": "rcl", "aug": "freq", "seeds": [0], "labels": [100], "shifts": ["gain-up"], "severities": [3],
        "data": [*tiny_settings["data"], str(packs[1][0].path)],
    }  # fmt: skip
    found: dict[str, dict[str, bytes]] = {}
    for mib in (HELD, NONE):
        memory(mib)
        plan = make_plan(installed, resolve({**tiny_settings, **asked}), lambda *_: None)
        run_plan(plan, Store(tmp_path / mib).open(), installed, Quiet())
        files = [path for path in (tmp_path / mib).rglob("*") if path.suffix in (".safetensors", ".csv")]
        found[mib] = {str(path.relative_to(tmp_path / mib)): path.read_bytes() for path in files}
    assert {Path(name).name for name in found[NONE]} >= {"weights.safetensors", "masks.safetensors", "curve.csv"}
    assert found[HELD] == found[NONE]


def gathers(streamed: Streamed) -> list[tuple[bool, list[int]]]:
    """What is gathered from now on: whether by the caller's own thread, and which rows."""
    found: list[tuple[bool, list[int]]] = []
    gather = streamed._gather

    def told(rows: np.ndarray) -> torch.Tensor:
        found.append((threading.current_thread() is threading.main_thread(), rows.tolist()))
        return gather(rows)

    streamed._gather = told  # type: ignore[method-assign]
    return found


def test_the_rows_of_the_next_step_are_gathered_by_a_thread(
    tiny_pack: Path, installed: Registry, memory: Callable[[str], None]
) -> None:
    memory(NONE)
    plain = installed.get("augmentation", "none")
    feed = Feed([(Pack(tiny_pack), np.arange(40))], 32, CPU)
    found = gathers(feed.images)
    batches = Batches(feed, build_views((Part(plain, {}),), 32, (1, 0)), Image(), batch=16, total=5, seed=0)
    for step in range(5):
        batches(step)
    assert found == [(step == 0, order(40, 16, step, 0, "pretrain").tolist()) for step in range(5)]


def test_an_evaluation_reads_each_image_once_and_in_turn(tiny_pack: Path, memory: Callable[[str], None]) -> None:
    memory(NONE)
    feed = Feed([(Pack(tiny_pack), np.arange(40))], 32, CPU, masks=True)
    found = gathers(feed.images)
    rows = [rows for rows in feed.in_turn(np.arange(40), 16, feed.images) if len(feed.take(feed.images, rows))]
    assert [list(of) for of in rows] == [list(range(16)), list(range(16, 32)), list(range(32, 40))]
    assert sorted(rows for _, rows in found) == [list(of) for of in rows]


def test_rows_that_nobody_takes_do_not_pile_up(tiny_pack: Path, memory: Callable[[str], None]) -> None:
    memory(NONE)
    feed = Feed([(Pack(tiny_pack), np.arange(40))], 32, CPU)
    for start in range(20):
        feed.ahead(np.arange(start, start + 4), feed.images)
    assert len(feed.images._coming) == AHEAD
    assert torch.equal(feed.take(feed.images, np.arange(19, 23)), feed.take(feed.images, np.arange(19, 23)))


def test_shrunk_planes_are_written_once_and_an_old_file_goes(
    tiny_pack: Path, data_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: Callable[[str], None]
) -> None:
    monkeypatch.setenv("USBENCH_DATA", str(tmp_path))
    memory(NONE)
    folder = tmp_path / "planes"
    folder.mkdir()
    for name, days in (("old.u8", planes.KEPT_DAYS + 1), ("new.u8", planes.KEPT_DAYS - 1)):
        (folder / name).touch()
        os.utime(folder / name, (time.time(), time.time() - days * 86400))
    pack = Pack(tiny_pack)
    for rows in (np.arange(40), np.arange(9)):  # of whatever rows, at one size: one file
        Feed([(pack, rows)], 32, CPU)
    (written,) = set(folder.iterdir()) - {folder / "new.u8"}
    assert written.name.startswith(f"{pack.digest}-images-40-") and written.stat().st_size == 40 * 40 * 40
    Feed([(pack, np.arange(40))], 64, CPU)  # as large as the pack: its own images are mapped
    assert len(list(folder.iterdir())) == 2
    before = written.stat().st_ino
    written.write_bytes(b"cut off")
    assert np.array_equal(
        planes.mapped(pack, "images", 40), planes.shrink(pack.images[np.arange(40)], 40)[:, 0].numpy()
    )
    assert written.stat().st_ino != before


def test_a_copy_that_cannot_be_written_is_said_in_a_sentence(
    tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: Callable[[str], None]
) -> None:
    (tmp_path / "planes").write_text("in the way")
    monkeypatch.setenv("USBENCH_DATA", str(tmp_path))
    memory(NONE)
    with pytest.raises(UsbenchError, match=r"40 px, cannot be written .*: make room, set USBENCH_DATA .*\.$"):
        Feed([(Pack(tiny_pack), np.arange(40))], 32, CPU)


def test_the_room_is_a_share_of_free_memory_or_what_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: Callable[[str], None]
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 2000 kB\nMemFree: 10 kB\nMemAvailable:   1000 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("4:cpu,memory:/job/step\n0::/job\n")
    monkeypatch.setattr(room, "ROOT", tmp_path)
    monkeypatch.delenv(room.SETTING, raising=False)
    assert room.room(CPU) == 1000 * 1024 * room.HOST_SHARE
    for where, limit in (("job/memory.max", "max"), ("memory/job/memory.limit_in_bytes", str(400 * 1024))):
        (tmp_path / "sys/fs/cgroup" / where).parent.mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup" / where).write_text(limit)
    assert room.room(CPU) == 400 * 1024 * room.HOST_SHARE
    (tmp_path / "sys/fs/cgroup/job/memory.max").write_text(str(300 * 1024))
    assert room.room(CPU) == 300 * 1024 * room.HOST_SHARE
    monkeypatch.setattr(room, "ROOT", tmp_path / "elsewhere")
    assert room.free_memory() > 2**20
    memory("1.5")
    assert room.room(CPU) == 3 * 2**19
    for wrong in ("plenty", "nan", "inf", "-1"):
        memory(wrong)
        with pytest.raises(UsbenchError, match=rf"{room.SETTING} is '{wrong}': give the MiB"):
            room.room(CPU)


def test_all_planes_of_a_feed_count_against_the_room(tiny_pack: Path, memory: Callable[[str], None]) -> None:
    rows = [(Pack(tiny_pack), np.arange(40))]
    memory(str(40 * 64**2 / 2**20))
    assert not Feed(rows, 64, CPU).streams and Feed(rows, 64, CPU, masks=True).streams


def test_the_steps_of_a_lap_share_its_permutation(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int | str, ...]] = []

    def counted(*labels: int | str) -> np.random.Generator:
        drawn.append(labels)
        return generator(*labels)

    generator = feed_module.generator
    monkeypatch.setattr(feed_module, "generator", counted)
    rows = [order(1000, 10, step, 5, "shared") for step in range(150)]
    assert drawn == [(5, "shared", "order", lap) for lap in (0, 1)]
    assert np.array_equal(np.concatenate(rows[:100]), generator(5, "shared", "order", 0).permutation(1000))


def test_sectors_are_read_only_where_boxes_are_asked_for(tiny_pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read = planes.read_plane
    monkeypatch.setattr(
        feed_module, "read_plane", lambda pack, name, rows: asked.append(name) or read(pack, name, rows)
    )
    feed = Feed([(Pack(tiny_pack), np.arange(40))], 32, CPU, masks=True)
    assert set(asked) == {"images", "mask"}
    assert feed.boxes.shape == (40, 4) and asked[-1] == "sector"


def test_frames_are_numbered_as_by_a_loop_over_the_videos() -> None:
    rng = np.random.default_rng(0)
    video = rng.integers(-1, 6, 60)
    frame = np.where(rng.random(60) < 0.5, -1, rng.integers(0, 9, 60))
    frame[np.isin(video, (1, 2, 4))] = -1
    time = np.where(video == 2, rng.random(60), np.nan).astype(np.float32)
    time[np.flatnonzero(video == 4)[1:]] = 0.5  # one of its times is not known: they tell no order
    expected = frame.copy()
    for code in range(6):
        rows = [row for row in range(60) if video[row] == code]
        if all(frame[row] < 0 for row in rows):
            if code == 2:
                rows.sort(key=lambda row: time[row])
            for number, row in enumerate(rows):
                expected[row] = number
    assert np.array_equal(_numbered(frame, video, time), expected)
