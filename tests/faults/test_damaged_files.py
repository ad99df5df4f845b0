"""Damaged files of every kind end in a sentence that names them: a fast part of what benchmarks/hostile.py does."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from damaged_files import FOLDERS, IMAGES, PACKS, ZIPS, png
from entry import Ended, faults
from kinds import KINDS, Kind, World, try_case

FAST = 4  # damages of each kind, from a place of its own


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_damaged_file_ends_in_a_sentence_that_names_it(kind: Kind, world: World, tmp_path: Path) -> None:
    start = 3 * KINDS.index(kind)
    for number in range(start, start + FAST):
        case = try_case(kind, world, tmp_path / str(number), number)
        assert not case.faults, f"{case.damage}: {case.faults}\n{case.said}\n{case.trace}"


def _case(kind: str, damage: str, world: World, folder: Path, command: int) -> list[str]:
    chosen = next(each for each in KINDS if each.name == kind)
    only = Kind(chosen.name, chosen.lay, {damage: chosen.damages[damage]}, [chosen.commands[command]], chosen.called)
    case = try_case(only, world, folder, 0)
    assert not case.faults, f"{case.faults}\n{case.said}\n{case.trace}"
    return [str(case.code), case.said]


@pytest.mark.parametrize(
    "damage",
    ["a link to nowhere", "a link outside", "a link to a device", "stored elsewhere", "virtual"],
)
def test_a_pack_cannot_lead_out_of_its_file(world: World, tmp_path: Path, damage: str) -> None:
    code, said = _case("pack", damage, world, tmp_path / "case", 0)
    assert code == "2" and ("link to somewhere else" in said or "in the file itself" in said), said


@pytest.mark.parametrize("damage", ["absurd chunks", "everything absurd", "nobody", "no pixels", "other sides"])
def test_absurd_sizes_of_a_pack_are_refused_before_anything_is_allocated(
    world: World, tmp_path: Path, damage: str
) -> None:
    assert _case("pack", damage, world, tmp_path / "case", 1)[0] == "2"


@pytest.mark.parametrize("damage", ["a pipe", "a link to a device without end", "a link to itself", "a link up"])
@pytest.mark.parametrize("command", [0, 1, 3])
def test_what_never_ends_is_not_read_as_an_image(world: World, tmp_path: Path, damage: str, command: int) -> None:
    _case("file of a release", damage, world, tmp_path / "case", command)


@pytest.mark.parametrize(
    "damage", [name for name in ZIPS if ".." in name or "/etc" in name or "C:" in name or "link" in name]
)
def test_a_zip_cannot_lead_out_of_itself(world: World, tmp_path: Path, damage: str) -> None:
    code, said = _case("zip", damage, world, tmp_path / "case", 0)
    if "/.../" not in damage:  # an odd name, and no way out
        assert code == "2" and "do not trust it" in said, said


@pytest.mark.parametrize("damage", ["a bomb", "encrypted", "a member twice", "gigantic sizes", "LZMA, damaged"])
def test_a_zip_that_is_a_trick_is_refused(world: World, tmp_path: Path, damage: str) -> None:
    assert _case("zip", damage, world, tmp_path / "case", 0)[0] == "2"


@pytest.mark.parametrize("damage", ["a bomb", "a bomb of pixels", "a bomb of text", "no width", "a side of 2^31"])
def test_an_image_that_is_a_bomb_is_refused(world: World, tmp_path: Path, damage: str) -> None:
    code, said = _case("image, imported", damage, world, tmp_path / "case", 0)
    assert code == "2" and ".png' cannot be used" in said, said


@pytest.mark.parametrize("kind", ["suite", "config", "split", "run.json", "config of an export"])
def test_deep_nesting_is_refused(world: World, tmp_path: Path, kind: str) -> None:
    assert _case(kind, "nested deeply", world, tmp_path / "case", 0)[0] == "2"


def test_a_record_without_its_parts_is_named(world: World, tmp_path: Path) -> None:
    for place, damage in enumerate(("a list", "a number")):
        for command in range(5):
            _case("record.json", damage, world, tmp_path / f"{place}-{command}", command)


def test_a_prediction_that_cannot_be_made_leaves_no_folder(world: World, tmp_path: Path) -> None:
    assert _case("image, predicted", "no width", world, tmp_path / "case", 0)[0] == "2"


def test_a_plugin_that_leaves_or_registers_rubbish_is_listed_as_broken(world: World, tmp_path: Path) -> None:
    chosen = next(each for each in KINDS if each.name == "plugin")
    rubbish = [
        name for name in chosen.damages if name.startswith(("options", "a number", "no ", "interrupts", "a summ"))
    ]
    for place, damage in enumerate(rubbish):
        _case("plugin", damage, world, tmp_path / str(place), 1)


def test_every_way_of_ending_badly_is_noticed() -> None:
    def ended(code: int, err: str) -> Ended:
        return Ended(code, "", err, 0.1)

    good = "usbench: a.h5 is no pack.\n"
    assert not faults(ended(2, good), ("a.h5",), set(), set())
    assert faults(ended(2, good), ("b.h5",), set(), set()) == ["the message does not name the file"]
    assert faults(ended(2, good * 2), ("a.h5",), set(), set()) == ["no single sentence"]
    assert faults(ended(3, good), ("a.h5",), set(), set()) == ["exit code 3"]
    assert "a traceback" in faults(ended(1, "Traceback (most recent call last):\n a.h5"), ("a.h5",), set(), set())
    assert faults(ended(1, "usbench: unexpected a.h5."), ("a.h5",), set(), set()) == ["an unexpected error"]
    assert faults(ended(-1, ""), ("a.h5",), set(), set()) == ["it hung (0 s)"]
    assert faults(ended(2, good), ("a.h5",), set(), {"o.h5"}) == ["left behind: o.h5"]
    assert faults(ended(0, ""), ("a.h5",), set(), {".o.h5.1.part"}) == ["half-written: .o.h5.1.part"]
    assert faults(ended(0, "warning: odd\n"), ("a.h5",), set(), set()) == ["a library's warning"]


def test_every_damage_changes_the_file(world: World, tmp_path: Path) -> None:
    import numpy as np

    for kind, damages in (("pack", PACKS), ("image, imported", IMAGES), ("zip", ZIPS), ("file of a release", FOLDERS)):
        chosen = next(each for each in KINDS if each.name == kind)
        for name in itertools.islice(damages, 0, None, 3):
            folder = tmp_path / kind / name.replace("/", "_").replace("\x00", "")[:60]
            folder.mkdir(parents=True)
            rng = np.random.default_rng(1)
            file = chosen.lay(world, folder, rng)
            whole, before = file.read_bytes(), sorted(file.parent.iterdir())
            damages[name](file, rng)
            same = file.is_file() and not file.is_symlink() and file.read_bytes() == whole
            assert not same or sorted(file.parent.iterdir()) != before, (kind, name)
    assert png(3, 2)[:4] == b"\x89PNG"
