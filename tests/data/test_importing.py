"""The frame of an importer: order, bounded memory, names, and what a 15-line plugin is enough for."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from usbench.data.importing import Case, Importer, Release, in_order, number, whole
from usbench.data.pack import Pack
from usbench.data.packing import write_pack
from usbench.errors import UsbenchError
from usbench.items import Item

ROOT = Path(__file__).parents[2]


def test_in_order_keeps_the_order_and_holds_few_results() -> None:
    running, lock, ahead = 0, threading.Lock(), []

    def work(job: int) -> int:
        nonlocal running
        with lock:
            running += 1
        time.sleep(0.001 * (job % 3))
        return job

    done = []
    for job in in_order(work, range(60), workers=3):
        with lock:
            ahead.append(running - len(done))
        done.append(job)
    assert done == list(range(60))
    assert max(ahead) <= 13


def test_in_order_raises_what_a_job_raised() -> None:
    def work(job: int) -> int:
        if job == 5:
            raise UsbenchError("five.")
        return job

    results = in_order(work, range(1000), workers=2)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(UsbenchError, match="five"):
        next(results)


def test_cells_are_numbers_or_unknown() -> None:
    assert number("0,25") == 0.25 and np.isnan(number("")) and np.isnan(number("x"))
    assert (whole("3"), whole("3.0"), whole(""), whole("x")) == (3, 3, -1, -1)


class Plain(Importer):
    classes = ("One", "two")
    layout = r"[a-z]\.png"
    finds_sector = False

    def cases(self, release: Release) -> Iterator[Case]:
        for image in release.match(self.layout):
            yield Case(image[0], image[0], label=self.label(" one "))


def test_an_importer_may_leave_the_sector_alone_and_says_what_belongs_to_nothing(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "thumbnail.jpg"):
        Image.new("L", (9, 9), 50).save(tmp_path / name)
    plain = Plain()
    items = list(plain.items(tmp_path))
    assert [(item.name, item.label, item.sector, item.mask) for item in items] == [
        ("a.png", 0, None, None), ("b.png", 0, None, None),
    ]  # fmt: skip
    assert list(plain.skipped) == ["thumbnail.jpg"]
    with pytest.raises(UsbenchError, match="class 'three' is none of One, two"):
        plain.label("three")


def test_what_was_skipped_stands_in_the_pack_and_not_in_its_digest(tmp_path: Path) -> None:
    said = dict.fromkeys(("dataset", "source", "licence", "citation", "importer", "version"), "x")

    def written(name: str, skipped: dict[str, str]) -> Pack:
        items = [Item("a", np.zeros((8, 8), np.uint8))]
        write_pack(tmp_path / name, items, size=8, attributes=said, skipped=lambda: skipped)
        return Pack(tmp_path / name)

    many = {f"a rather long name of a file {n}.png": "it belongs to no image of the set" for n in range(5000)}
    packs = [written("none.h5", {}), written("one.h5", {"b": "broken"}), written("many.h5", many)]
    assert len({pack.digest for pack in packs}) == 1
    assert [pack.skipped[0] for pack in packs] == [0, 1, 5000]
    assert packs[1].skipped[1] == {"b": "broken"} and 100 < len(packs[2].skipped[1]) < 5000
    for pack in packs:
        pack.check()


def test_the_data_set_of_contributing_is_a_plugin_of_fifteen_lines(tmp_path: Path, usbench: Callable[..., Any]) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "usbench_datasets" in block)
    body = [line for line in code.splitlines() if line.strip() and not line.startswith(("#", "from", "import"))]
    assert len(body) <= 15
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "thyroid.py").write_text(code)
    rng = np.random.default_rng(0)
    for scan in ("p1_1", "p1_2", "p2_1"):
        for folder in ("scans", "nodules"):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(60, 200, (30, 40)).astype(np.uint8)
            Image.fromarray(pixels if folder == "scans" else pixels // 250).save(tmp_path / f"set/{folder}/{scan}.png")
    (tmp_path / "set/patients.csv").write_text("patient,finding\np1,benign\np2,malignant\n")
    said = usbench("--plugins-dir", plugins, "data", "import", "thyroid", tmp_path, "-o", tmp_path / "t.h5")
    assert said.code == 0, said.err
    pack = Pack(tmp_path / "t.h5")
    assert list(pack.table.patient) == ["p1", "p1", "p2"] and list(pack.table.label) == [0, 0, 1]
    assert pack.table.has_mask.all() and pack.table.group.nunique() == 2


def test_a_map_that_is_given_up_waits_for_nobody() -> None:
    begun, go = threading.Event(), threading.Event()

    def job(number: int) -> int:
        if number > 4:
            begun.set()
            go.wait(10)
        return number

    found = in_order(job, range(100), workers=2)
    assert next(found) == 0
    begun.wait(10)
    before = time.perf_counter()
    found.close()
    assert time.perf_counter() - before < 5, "what was begun and is not wanted may take its time"
    go.set()
