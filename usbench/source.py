"""A digest of a plugin's source, so that edited code gets a new key."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

PREFIX = "usbench_"  # of packages that are followed when a plugin imports from them


@functools.cache
def digest(where: Path) -> str:
    """The digest of a plugin by its file: of its whole package, and of the packages `usbench_*` that it imports."""
    found: dict[Path, list[Path]] = {}
    waiting = [where]
    while waiting:
        top, files = _package(waiting.pop())
        if top not in found:
            found[top] = files
            waiting += [place for file in files for place in _imported(file)]
    whole = hashlib.sha256()
    for top, files in sorted(found.items(), key=lambda item: (item[0] != _package(where)[0], item[0].name)):
        for file in files:
            whole.update(file.relative_to(top.parent).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return whole.hexdigest()[:16]


def _package(file: Path) -> tuple[Path, list[Path]]:
    """The folder of the package that a module hangs on, and its modules; of a loose file, itself."""
    top = file.parent
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    return (top, sorted(top.rglob("*.py"))) if (top / "__init__.py").is_file() else (file, [file])


def _imported(file: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return  # it cannot be loaded either, and is listed as broken
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    for name in sorted(name for name in names if name.startswith(PREFIX)):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            yield Path(spec.origin)
