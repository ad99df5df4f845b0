"""A digest of a plugin's source, so that edited code gets a new key."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

from usbench.errors import RunFailed, UsbenchError

PREFIX = "usbench_"  # of packages that are followed wherever they lie
LIBRARIES = {"torch", "torchvision", "lightly", "timm", "segmentation_models_pytorch", "monai"}  # wherever they lie
NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
HARNESS = Path(__file__).parent


@functools.cache
def digest(where: Path) -> str:
    """The digest of a plugin by its file: of its whole package, and of all own code that it imports or names.

    Installed libraries are left out: their versions stand in the record.
    """
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
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
            names.add(node.value.partition(":")[0].partition(".")[0])  # "module:Class", resolved when it is used
    for name in sorted(names - sys.stdlib_module_names - {"usbench"}):
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # of a module without one, such as __main__
            continue
        if spec is not None and spec.origin and spec.origin.endswith(".py") and _followed(name, Path(spec.origin)):
            yield Path(spec.origin)


def _followed(name: str, origin: Path) -> bool:
    """Whether a module is somebody's own code: of a plugin, or none that was installed as a library."""
    if name.startswith(PREFIX) or name in _plugins():
        return True
    return name not in LIBRARIES and not {"site-packages", "dist-packages"} & set(origin.parts)


@functools.cache
def _plugins() -> frozenset[str]:
    """The packages whose entry points make them plugins."""
    return frozenset(point.module.partition(".")[0] for point in entry_points(group="usbench"))


@contextlib.contextmanager
def told(what: str, plugins: Iterable[str], *, where: str = "", more: str = "") -> Iterator[None]:
    """Whatever a stranger's code raises, as a sentence with its file and line."""
    try:
        yield
    except (UsbenchError, OSError):
        raise
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}{where}{line_of(error, plugins)}{more}"
        raise RunFailed(f"{what} failed: {said}.") from error


def line_of(error: BaseException, plugins: Iterable[str]) -> str:
    """Where it failed, as " (file.py, line 3)": the last line in the file or package of a plugin, or in anybody's code
    but the harness's and the libraries'; "" where there is none."""
    owns = {_package(Path(where))[0] for where in plugins if where}
    others = [HARNESS, *(Path(path) for path in sysconfig.get_paths().values())]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        own = any(top == file or top in file.parents for top in owns)
        if own or (file.is_absolute() and not any(top in file.parents for top in others)):
            return f" ({file.name}, line {frame.lineno})"
    return ""
