"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from usbench.whole import written


def test_a_file_takes_its_place_only_when_nothing_was_raised(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), written(path) as temporary:
        temporary.write_text("half")
        raise OSError("full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with written(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_two_who_write_one_file_at_a_time_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with written(path) as first, written(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]
