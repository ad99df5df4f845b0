"""`usbench.run_suite` from Python does what the command does, and returns what there is to know."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

import usbench
from usbench import UsbenchError
from usbench.cli.suite import run as command
from usbench.report.files import csv_text

SHORT = "[[runs]]\nlabels = [100]\n"


def test_it_takes_the_options_of_the_command_by_their_names() -> None:
    options = {str(parameter.name) for parameter in command.params}
    assert options | {"progress"} == set(inspect.signature(usbench.run_suite).parameters)


def test_its_result_is_the_leaderboard_that_it_wrote_and_nothing_is_done_twice(
    suite_file: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = suite_file(SHORT + "loss = 'none'\n"), tmp_path / "o"
    result = usbench.run_suite(path, out=out, progress=False)
    assert result.computed > 0 and result.path == out / "suite-tiny"
    assert csv_text(result.leaderboard) == (result.path / "leaderboard.csv").read_text()
    assert set(result.scores.key) == set(result.keys)
    again = usbench.run_suite(str(path), out=out, progress=False)
    assert again.computed == 0 and again.leaderboard.equals(result.leaderboard)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": 0}, "workers=0: give how many"),
        ({"engine": "slurm"}, "unknown engine 'slurm'"),
        ({"out": 3}, "--out 3: give a text or a path"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    suite_file: Callable[[str], Path], tmp_path: Path, given: dict[str, object], said: str
) -> None:
    with pytest.raises(UsbenchError, match=said):
        usbench.run_suite(suite_file(SHORT + "loss = 'none'\n"), **{"out": tmp_path / "o", **given})  # type: ignore[arg-type]
    assert not (tmp_path / "o").exists()
