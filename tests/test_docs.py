"""The documents keep up with the hooks."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from usbench.hookspecs import Hooks

HOUSE = Path(__file__).parent.parent
HOOKS = {name: function for name, function in vars(Hooks).items() if name.startswith("usbench_")}


def test_there_are_hooks_to_check() -> None:
    assert len(HOOKS) >= 5


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook: str) -> None:
    others = [file for file in (HOUSE / "tests").rglob("test_*.py") if file != Path(__file__)]
    assert any(hook in file.read_text("utf-8") for file in others)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_heading_with_its_signature(hook: str) -> None:
    parameters = [name for name in inspect.signature(HOOKS[hook]).parameters if name != "self"]
    headings = [line.strip() for line in (HOUSE / "CONTRIBUTING.md").read_text("utf-8").splitlines()]
    assert f"### {hook}({', '.join(parameters)})" in headings


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_says_what_it_is_for(hook: str) -> None:
    assert (HOOKS[hook].__doc__ or "").endswith(".")
