"""The house: no import runs up, none in a circle, and what must be light imports no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from usbench.hooks import Registry

HOUSE = Path(__file__).parent.parent
FLOORS = (
    {"errors", "draws", "items", "source", "options", "hookspecs", "hooks", "contracts", "views", "spec", "suites",
     "scaffold", "machine", "loose", "made", "whole", "explained", "registration"},
    {"data"},
    {"train", "evaluate"},
    {"runs", "conformance"},
    {"report"},
    {"share", "bench"},
    {"api"},
    {"cli"},
)  # fmt: skip
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted((HOUSE / "usbench").rglob("*.py"))
PLUGINS = sorted((HOUSE / "plugins").rglob("*.py"))


def imports(file: Path, *, at_top: bool = False) -> Iterator[str]:
    """The modules of the harness that a file imports, anywhere or when it is imported itself."""
    tree = ast.parse(file.read_text("utf-8"))
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "usbench")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "usbench":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """usbench.data.pack.Pack → data; nothing for the package itself."""
    return [*module.split("."), ""][1]


def module_of(file: Path) -> str:
    """The dotted name of a file."""
    return ".".join(file.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__")


def test_every_room_stands_on_a_floor() -> None:
    rooms = {file.relative_to(HOUSE / "usbench").parts[0].removesuffix(".py") for file in FILES}
    assert rooms - FLOOR_OF.keys() <= {"__init__", "__main__"}


@pytest.mark.parametrize("file", [f for f in FILES if f.parent.name != "usbench" or f.stem in FLOOR_OF], ids=module_of)
def test_no_import_runs_up(file: Path) -> None:
    here = FLOOR_OF[file.relative_to(HOUSE / "usbench").parts[0].removesuffix(".py")]
    up = [name for name in imports(file) if FLOOR_OF.get(room(name), 0) > here]
    assert not up


@pytest.mark.parametrize("file", PLUGINS, ids=lambda f: f.relative_to(HOUSE / "plugins").as_posix())
def test_a_plugin_imports_only_what_a_strangers_could(file: Path) -> None:
    rooms = {room(name) for name in imports(file)} & FLOOR_OF.keys()
    assert rooms <= FLOORS[0] | {"data", "evaluate"}


def test_a_module_is_read_in_one_go() -> None:
    lines = {module_of(file): file.read_text("utf-8").count("\n") for file in FILES}
    assert {name: count for name, count in lines.items() if count > 250} == {}


def test_no_import_goes_in_a_circle() -> None:
    found = {module_of(file): {f"{name}." for name in imports(file, at_top=True)} for file in FILES}
    graph = {
        module: {
            other for other in found
            if any(name.startswith(f"{other}.") for name in names) and not f"{module}.".startswith(f"{other}.")
        }
        for module, names in found.items()
    }  # fmt: skip
    assert graph["usbench.data.feed"] > {"usbench.data.pack", "usbench.draws"}
    TopologicalSorter(graph).prepare()


def test_the_core_knows_no_loss_by_name(installed: Registry) -> None:
    names = {entry.name for entry in installed.entries("loss") if entry.factory is not None}
    found = [
        f"{module_of(file)}:{node.lineno} {node.value!r}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert len(names) > 3 and not found


LIGHT = """
import contextlib, io, sys
from usbench import cli
for words in {commands!r}:
    sys.argv = ["usbench", *words]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            cli.main()
    except SystemExit as end:
        heavy = {{"torch", "lightly", "timm", "monai", "scipy.stats"}} & sys.modules.keys()
        print(words[0], end.code, ",".join(sorted(heavy)) or "light")
        assert not end.code, said.getvalue()
"""


def test_help_listing_and_planning_import_no_torch(tiny: list[str], tmp_path: Path) -> None:
    commands = [
        ["--help"], ["plugins", "list"], ["plugins", "show", "simclr"],
        ["run", "--loss", "simclr", *tiny, "--out", str(tmp_path / "runs"), "--dry-run"],
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(commands=commands)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{words[0]} 0 light" for words in commands]
