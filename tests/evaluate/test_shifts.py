"""Shifts are the same for whoever asks, grow with severity, stay in the sector, and reach the table by their name."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from usbench.data.pack import Pack
from usbench.errors import RunFailed, UsbenchError
from usbench.evaluate import shifts
from usbench.evaluate.shifts import CORRUPTIONS, SEVERITIES, corrupt, named
from usbench.hooks import Registry
from usbench.report.cells import cells
from usbench.report.index import Index
from usbench.report.robustness import lines_of, shared_severities
from usbench.runs.plan import make_plan
from usbench.runs.store import Store
from usbench.spec import resolve

EVERY = pytest.mark.parametrize("what", CORRUPTIONS)
NAMES = ("first", "second", "third")


def scans(height: int = 96, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Three scans with a dark disc, seen by a linear array, a fan and a smaller linear array; bright outside too."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 6) ** 2
    images = (rng.rayleigh(70, (3, height, width)) * np.where(disc, 0.4, 1)).clip(0, 255).astype(np.uint8)
    sectors = np.ones(images.shape, bool)
    sectors[1] = (np.abs(x - width / 2) < width / 8 + y / 2) & (np.hypot(y + width / 4, x - width / 2) > width / 3)
    sectors[2] = (y > height / 8) & (x > width / 5)
    return images, sectors


@EVERY
def test_the_same_image_gets_the_same_bytes_alone_or_in_any_batch(what: str) -> None:
    images, sectors = scans()
    together = corrupt(images, sectors, NAMES, what, 3, seed="digest")
    assert together.dtype == np.uint8 and together.shape == images.shape
    for i in (2, 0, 1):
        alone = corrupt(images[i : i + 1], sectors[i : i + 1], NAMES[i : i + 1], what, 3, seed="digest")
        assert np.array_equal(alone[0], together[i])
    assert np.array_equal(images, scans()[0])  # what was given is not written to


@EVERY
def test_another_image_and_another_pack_get_another_pattern(what: str) -> None:
    images, sectors = scans()
    one = corrupt(images, sectors, NAMES, what, 5, seed="digest")
    for names, seed in ((("a", "b", "c"), "digest"), (NAMES, "other")):
        other = corrupt(images, sectors, names, what, 5, seed=seed)
        # A gain is one number: two scans may come to the same grey level.
        assert sum(bool((one[i] != other[i]).any()) for i in range(3)) >= 2


@EVERY
def test_a_higher_severity_changes_more(what: str) -> None:
    images, sectors = scans()
    made = [corrupt(images, sectors, NAMES, what, severity, seed="digest") for severity in SEVERITIES]
    change = np.array([np.abs(each.astype(int) - images).mean(axis=(1, 2)) for each in made])
    assert (np.diff(change, axis=0) > 0).all() and (change[0] > 0).all()
    assert change[0].max() < 12  # hardly visible, of 255


@EVERY
def test_nothing_changes_outside_the_sector(what: str) -> None:
    images, sectors = scans()
    made = corrupt(images, sectors, NAMES, what, 5, seed="digest")
    assert np.array_equal(made[~sectors], images[~sectors])
    assert all((made[i] != images[i])[sectors[i]].any() for i in range(3))
    images, sectors = scans(300, 300)
    sectors[:] = False
    assert np.array_equal(corrupt(images, sectors, NAMES, what, 5, seed="digest"), images)
    sectors[:, 200, 201] = True
    assert np.array_equal(corrupt(images, sectors, NAMES, what, 5, seed="digest")[~sectors], images[~sectors])


@EVERY
@pytest.mark.parametrize("size", [(37, 53), (64, 31), (5, 7), (1, 1)])
def test_any_size_keeps_its_shape(what: str, size: tuple[int, int]) -> None:
    images, sectors = scans(*size)
    sectors[:, 0, 0] = True
    assert corrupt(images, sectors, NAMES, what, 4, seed=1).shape == images.shape
    assert corrupt(images[:0], sectors[:0], (), what, 4, seed=1).shape == (0, *size)


@EVERY
def test_dark_scans_stay_readable_and_black_ones_stay_calm(what: str) -> None:
    images, sectors = scans()
    black = np.zeros_like(images)
    if what != "text":
        assert np.array_equal(corrupt(black, sectors, NAMES, what, 5, seed="digest"), black)
    made = corrupt(images // 3, sectors, NAMES, what, 5, seed="digest")
    assert all(made[i][sectors[i]].std() > 1 for i in range(3))


def test_no_global_random_state_is_touched() -> None:
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()  # type: ignore[union-attr]
    for what in CORRUPTIONS:
        corrupt(*scans(), NAMES, what, 5, seed="digest")
    assert np.array_equal(before[0], np.random.get_state()[1])  # type: ignore[arg-type]
    assert before[1] == random.getstate() and torch.equal(before[2], torch.get_rng_state())


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_a_severity_that_is_none_is_refused(severity: int) -> None:
    with pytest.raises(UsbenchError, match="whole number from 1 to 5"):
        corrupt(*scans(), NAMES, "blur", severity, seed=0)


def test_the_rays_of_a_fan_part_and_those_of_a_linear_array_do_not() -> None:
    _, sectors = scans()
    linear, fan = shifts._beams(sectors[2]), shifts._beams(sectors[1])
    y, x = np.argwhere(sectors[2]).T
    assert np.allclose(linear[0][sectors[2]], (y - y.min()) / np.ptp(y))
    assert np.allclose(linear[1][sectors[2]], (x - x.min()) / np.ptp(x))
    rows = np.flatnonzero(sectors[1].any(axis=1))
    quarter = [np.abs(fan[1][row] - 0.25).argmin() for row in (rows[len(rows) // 3], rows[-5])]
    assert quarter[1] < quarter[0] - 3  # the same ray lies farther out as it goes down
    assert np.abs(np.diff(fan[0][sectors[1].any(1), 48])).max() < 0.05


def test_names_are_taken_in_the_order_of_the_table_and_wrong_ones_are_named() -> None:
    assert named(["all"]) == list(CORRUPTIONS) and named([]) == []
    assert named(["text", "speckle", "text"]) == ["speckle", "text"]
    with pytest.raises(UsbenchError, match="did you mean 'shadow'"):
        named(["shadw"])
    assert all(each.summary and len(each.strengths) == 5 for each in CORRUPTIONS.values())


def test_a_changed_source_or_other_bytes_change_the_key(
    installed: Registry, tiny_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**tiny_settings, "loss": "none", "seeds": [0], "labels": [100], "shifts": ["blur"], "severities": [2]}

    def keys() -> list[str]:
        shifts.identity.cache_clear()
        plan = make_plan(installed, resolve(settings), lambda *_: None)
        return [stage.key for stage in plan.stages if stage.kind == "evaluate" and stage.row["loss"] == "none"]

    first = keys()
    assert len(set(first)) == 3 and first == keys()  # clean, unseen, blurred
    asked = shifts.identity("blur", 2)
    kind = CORRUPTIONS["blur"]
    other = shifts.Corruption(kind.apply, (0.8, 1.5, 2.1, 3.0, 4.2), kind.summary)
    with monkeypatch.context() as patch:
        patch.setitem(CORRUPTIONS, "blur", other)
        assert len(set(first) & set(keys())) == 2
        with pytest.raises(RunFailed, match="'blur:2' comes out otherwise"):
            shifts.reader(asked)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: b"edited")
        assert len(set(first) & set(keys())) == 2
    shifts.identity.cache_clear()


def test_a_plan_has_shifts_only_where_they_are_asked_for_and_only_in_distribution(
    installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    settings = {"loss": "simclr", "seeds": [0], **tiny_settings}

    def tests(**more: Any) -> list[Any]:
        plan = make_plan(installed, resolve({**settings, **more}), lambda *_: None)
        return [stage for stage in plan.stages if stage.kind == "evaluate"]

    plain, shifted = tests(), tests(shifts=["shadow", "tgc"], severities=[1, 5])
    assert {stage.row["shift"] for stage in plain} == {"in", "out"}
    assert {stage.id for stage in plain} < {stage.id for stage in shifted}
    more = [stage for stage in shifted if stage.row["shift"] not in ("in", "out")]
    assert {stage.row["shift"] for stage in more} == {"shadow:1", "shadow:5", "tgc:1", "tgc:5"}
    assert {stage.row["test_data"] for stage in more} == {"discs"} and len(more) == 4 * 6
    assert len({stage.row["arena"] for stage in shifted}) == 2 * (2 + 4)  # a fraction, and each its own test
    assert len(tests(shifts="all")) == len(plain) + 6 * len(CORRUPTIONS) * 5


@pytest.fixture
def command(tiny: list[str], tmp_path: Path) -> list[str]:
    steps = ["--labels", "100", "--set", "finetune.steps=30", "--set", "finetune.lr=0.01", "--set", "pretrain.steps=2"]
    asked = ["--shifts", "gain-up,dynamic-range", "--severities", "1,5"]
    return ["run", "--loss", "simclr", *tiny, *steps, *asked, "--out", str(tmp_path / "runs")]


def test_a_run_with_shifts_ends_with_rows_a_table_and_a_figure(
    usbench: Callable[..., Any], command: list[str], tmp_path: Path
) -> None:
    done = usbench(*command)
    assert done.code == 0, done.err
    assert "Robustness: mean Dice over severities, 100 %" in done.out and "gain-up 1,5" in done.out
    folder = Path(re.findall(r"usbench show (.+)$", done.out.strip(), re.M)[-1])
    with Image.open(folder / "robustness.png") as picture:
        assert min(picture.size) > 200
    table = pd.read_csv(folder / "leaderboard.csv")
    found = {f"{what}:{k}" for what in ("gain-up", "dynamic-range") for k in (1, 5)}
    assert set(table["shift"]) == {"in", "out"} | found
    assert set(table.test_data[table["shift"].isin(found)]) == {"discs"}
    harsh, clean = (table[table["shift"] == s].set_index("loss").dice_mean for s in ("gain-up:5", "in"))
    assert (harsh != clean).all() and clean["none-long"] > 0.3

    every = cells(Index([Store(tmp_path / "runs")]).results)
    lines = lines_of(every)
    assert [line.name for line in lines] == ["simclr · spatial", "none", "none-long"]
    assert shared_severities(lines) == {"gain-up": [1, 5], "dynamic-range": [1, 5]}
    # What is said of images as they are is the same without shifts.
    plain = usbench(*(word for word in command if word not in command[command.index("--shifts") :][:4]))
    tables = [re.findall(r"Mean Dice of.*?(?=Robustness|One seed)", said.out, re.S) for said in (done, plain)]
    assert tables[0] and tables[0][0].split() == tables[1][0].split()
    assert "Robustness" not in plain.out and "robustness.png" not in plain.out
    before = pd.read_csv(Path(re.findall(r"usbench show (.+)$", plain.out.strip(), re.M)[-1]) / "leaderboard.csv")
    pd.testing.assert_frame_equal(before, table[~table["shift"].isin(found)].reset_index(drop=True), check_dtype=False)

    again = usbench(*command)
    assert re.search(r"^0 of \d+ stages computed", again.out, re.M)
    assert "Robustness" in usbench("show", folder).out and "Robustness" in usbench("leaderboard", folder.parent).out


def test_the_network_is_shown_the_corrupted_images_of_the_pack(
    installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    pack = Pack(Path(tiny_settings["data"][0]))
    rows = np.array([3, 1])
    shown = shifts.reader(shifts.identity("shadow", 4))(pack, rows)
    for image, row in zip(shown, rows, strict=True):
        name, sector = pack.table.name[row], pack.plane("sector", np.array([row]))
        alone = corrupt(pack.images[row][None], sector, [name], "shadow", 4, seed=pack.digest)
        assert np.array_equal(image, alone[0])
    assert np.array_equal(shifts.reader(None)(pack, rows), pack.images[rows])
    asked = {"loss": "none", "seeds": [0], "labels": [100], "ood": [], "shifts": ["tgc"], "severities": [3]}
    plan = make_plan(installed, resolve({**tiny_settings, **asked}), lambda *_: None)
    (stage,) = (s for s in plan.stages if s.row.get("shift") == "tgc:3" and s.row["loss"] == "none")
    assert stage.identity["shift"] == shifts.identity("tgc", 3) and "tgc:3" in stage.title


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--shifts", "spekle"], "unknown shift 'spekle': did you mean 'speckle'?"),
        (["--shifts", "all", "--severities", "0,3"], "a severity is a whole number from 1 to 5, not 0"),
        (["--shifts", "all", "--severities", "x"], "--severities 'x' are not numbers"),
        (["--shifts", "all", "--severities", ","], "at least one severity"),
        (["--severities", "3"], "--severities: of what?"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_bad_shifts_are_one_sentence(
    words: list[str], sentence: str, usbench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    said = usbench("run", "--loss", "none", *tiny, *words, "--out", tmp_path / "runs", "--dry-run")
    assert said.code == 2 and sentence in said.one_sentence()


def test_a_preview_shows_each_corruption_at_each_severity(
    usbench: Callable[..., Any], tiny_pack: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    said = usbench("preview", "--shifts", "all", "--data", tiny_pack, "-o", sheet)
    assert said.code == 0 and "speckle" in said.out
    with Image.open(sheet) as picture:
        assert picture.height > 1.2 * picture.width  # a row a corruption
    assert "give one of them" in usbench("preview", "-o", sheet).one_sentence()
    assert "names no corruption" in usbench("preview", "--shifts", ",", "-o", sheet).one_sentence()
