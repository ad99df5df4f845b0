"""The README's lines for notebooks run as they stand there."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import usbench
from usbench import Result
from usbench.api import stored
from usbench.api.asked import spec_of
from usbench.api.trackers import NAMES

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def test_the_lines_for_a_notebook_run(finished: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = [text for text in re.findall(r"```python\n(.+?)```", README, re.S) if "usbench.run(" in text]
    calls: list[dict[str, Any]] = []
    real: Callable[..., Any] = usbench.run

    def run(**asked: Any) -> Result:
        calls.append(asked)
        return finished

    monkeypatch.setattr(usbench, "run", run, raising=False)
    monkeypatch.setattr(usbench, "load", lambda folder: stored.load(finished.store.root), raising=False)
    monkeypatch.setattr(
        usbench, "compare", lambda a, b, stores: stored.compare(a, b, stores=[finished.store.root]), raising=False
    )
    names: dict[str, Any] = {}
    shown = []
    for statement in ast.parse(block).body:
        if isinstance(statement, ast.Expr):
            shown.append(eval(compile(ast.Expression(statement.value), "README", "eval"), names))
        else:
            exec(compile(ast.Module([statement], []), "README", "exec"), names)
    assert shown[0] is finished and sum(isinstance(each, pd.DataFrame) and len(each) > 0 for each in shown) == 4
    [asked] = calls
    keywords = dict.fromkeys(real.__kwdefaults__ | {"loss": None})
    assert spec_of({**keywords, **asked}, asked["set"], None).pretrain.steps == 500


def test_every_tracker_is_named() -> None:
    text = README.split("### Trackers")[1].split("\n## ")[0]
    assert all(name in text for name in NAMES)
