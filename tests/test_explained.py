"""What an option means is read from the docstring, without importing what it stands in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from usbench.explained import explained
from usbench.hooks import Registry

LOOSE = '''
from usbench import hookimpl

class Mine:
    """A loss.

    Args:
        weight: how much of it,
            said on two lines: with a colon.
        form: "a" or "b".
        stranger: no option of it.

    Not an option: this.
    """

@hookimpl
def usbench_losses(register):
    register("mine", Mine, summary="x", options={"weight": 1.0, "form": "a", "silent": 3})
'''


def test_lines_below_args_are_joined_and_only_options_are_told(tmp_path: Path, bare: Registry) -> None:
    (tmp_path / "mine.py").write_text(LOOSE)
    bare.load_folder(tmp_path)
    found = explained(bare.get("loss", "mine"))
    assert found == {"weight": "how much of it, said on two lines: with a colon.", "form": '"a" or "b".'}


def test_the_switches_of_rcl_are_explained(installed: Registry) -> None:
    entry = installed.get("loss", "rcl")
    assert set(explained(entry)) == set(entry.options)


def test_every_entry_can_be_asked(installed: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightly", None)
    for entry in installed.entries():
        assert set(explained(entry)) <= set(entry.options)


def test_show_prints_what_an_option_means(usbench: Callable[..., Any]) -> None:
    said = usbench("plugins", "show", "rcl")
    assert 'form=infonce  "infonce", "bce" or "mse"' in said.out
