"""Whatever a text file holds, it is read or refused in one sentence: settings, suites, splits, tables, names."""

from __future__ import annotations

import io
import json
import math
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usbench.data.frozen import read_split
from usbench.data.importing import whole
from usbench.data.pixels import read_colour, read_grey, read_mask
from usbench.data.release import open_release
from usbench.errors import UsbenchError
from usbench.report.files import csv_text, inert
from usbench.share.config import read_config as read_export
from usbench.spec import Choice, RunSpec, read_config, resolve
from usbench.suites import read_suite

few = settings(
    max_examples=60, deadline=2000, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
FIELDS = [*RunSpec.model_fields, "steps", "lr", "nothing"]
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.sampled_from(["", "none", "a+b", "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
tables = st.dictionaries(st.sampled_from(FIELDS), values, max_size=5)


def toml(value: Any) -> str:
    """A value as TOML writes it in a line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    return json.dumps(value)


def lines(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {toml(value)}\n" for key, value in table.items())


def read_or_refused(read: Callable[[], object], path: Path | None = None) -> None:
    """It is read, or refused in a sentence of one line that names the file."""
    try:
        read()
    except UsbenchError as error:
        assert str(error) and (path is None or str(path) in str(error)), error


@few
@given(st.binary(max_size=300) | documents.map(lambda d: json.dumps(d).encode()))
def test_any_split_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s.json").write_bytes(data)
    read_or_refused(lambda: read_split(tmp_path / "s.json"), tmp_path / "s.json")


@few
@given(st.dictionaries(st.sampled_from(["train", "val", "test", "unlabelled", "x"]), documents, max_size=4))
def test_any_sides_of_a_split(tmp_path: Path, sides: dict[str, Any]) -> None:
    (tmp_path / "s.json").write_text(json.dumps(sides), "utf-8")
    read_or_refused(lambda: read_split(tmp_path / "s.json"), tmp_path / "s.json")


@few
@given(st.binary(max_size=300) | tables.map(lambda table: lines(table).encode()))
def test_any_config(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.toml").write_bytes(data)
    read_or_refused(lambda: resolve({"loss": "none", "aug": "none", **read_config(tmp_path / "c.toml")}))


@few
@given(tables, tables, st.dictionaries(st.sampled_from([*FIELDS, "pretrain.lr", "finetune.steps"]), values, max_size=3))
def test_any_suite(tmp_path: Path, base: dict[str, Any], run: dict[str, Any], over: dict[str, Any]) -> None:
    quoted = {f'"{key}"': value for key, value in over.items()}
    text = f"[base]\n{lines(base)}[[runs]]\n{lines(run)}over = {toml(quoted)}\n"
    (tmp_path / "s.toml").write_text(text, "utf-8")

    def read() -> None:
        for each in read_suite(tmp_path / "s.toml").runs:
            each.trials()

    read_or_refused(read)


@few
@given(st.binary(max_size=300) | documents.map(lambda d: json.dumps(d).encode()))
def test_any_config_of_an_export(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.json").write_bytes(data)
    read_or_refused(lambda: read_export(tmp_path / "config.json"), tmp_path / "config.json")


@few
@given(st.text(alphabet=string.printable + "ä\0\u2028", max_size=40))
def test_any_name_of_a_plugin(text: str) -> None:
    read_or_refused(lambda: Choice.parse(text))


@few
@given(st.binary(max_size=400))
def test_any_table_of_a_release(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "images" / "a.png").write_bytes(b"")
    (tmp_path / "table.csv").write_bytes(data)
    release = open_release(tmp_path, r"images/.+\.png")
    read_or_refused(lambda: release.table("*.csv", ()), tmp_path)


@few
@pytest.mark.parametrize("read", [read_grey, read_colour, read_mask])
@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"BM", b"RIFF", b"P5 "]),
       st.binary(max_size=200))  # fmt: skip
def test_any_bytes_of_an_image(read: Callable[[bytes], object], head: bytes, data: bytes) -> None:
    read_or_refused(lambda: read(head + data))


@few
@given(st.text(max_size=40))
def test_no_text_is_a_formula_or_breaks_a_line_of_a_leaderboard(text: str) -> None:
    import pandas as pd

    cell = str(inert(text))
    assert "\n" not in cell and not cell.startswith(("=", "+", "-", "@"))
    again = pd.read_csv(
        io.StringIO(csv_text(pd.DataFrame({"a": [text]}))), dtype=str, keep_default_na=False, skip_blank_lines=False
    )
    assert again.a.tolist() == [cell]


@pytest.mark.parametrize(("where", "words"), [("over", "runs, more than"), ("select", "trials, more than")])
def test_a_grid_that_would_never_end_is_refused(tmp_path: Path, where: str, words: str) -> None:
    lists = {f"{group}.{name}": list(range(1, 2000)) for group in ("pretrain", "finetune") for name in ("lr", "steps")}
    quoted = toml({f'"{key}"': value for key, value in lists.items()})
    given = quoted if where == "over" else f'{{ over = {quoted}, on = "inner" }}'
    (tmp_path / "s.toml").write_text(f'[[runs]]\nloss = "none"\n{where} = {given}\n')
    with pytest.raises(UsbenchError, match=words):
        read_suite(tmp_path / "s.toml")


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e30", "-1e30", "", "x", "2147483648"])
def test_a_number_that_no_pack_can_keep_is_unknown(text: str) -> None:
    assert whole(text) == -1


def test_whole_numbers_of_a_table_are_read() -> None:
    assert [whole(text) for text in ("0", "7", "7.0", "3,0", "-2")] == [0, 7, 7, 3, -2]
