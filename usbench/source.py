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

_loaded: dict[Path, bytes] = {}  # a package or loose file → the digest of what this process loaded, or first read of it
_used: dict[Path, str] = {}  # a plugin's file → its digest when this process first computed with it
_parts: dict[Path, list[Path]] = {}  # a plugin's file → the packages and loose files that it is made of


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
        text = _text(top, files)
        whole.update(text)
        _loaded.setdefault(top, hashlib.sha256(text).digest())
    _parts[where] = list(found)
    return whole.hexdigest()[:16]


def _text(top: Path, files: Iterable[Path]) -> bytes:
    named = ((file.relative_to(top.parent).as_posix().encode(), file.read_bytes()) for file in files)
    return b"".join(name + b"\0" + code + b"\0" for name, code in named)


def note_loaded(where: str) -> None:
    """Remember what a plugin is, by its file, when it is loaded."""
    if where:
        top, files = _package(Path(where))
        _loaded.setdefault(top, hashlib.sha256(_text(top, files)).digest())
        _parts.setdefault(Path(where), [top])


def first_used(where: Path) -> str:
    """The digest of a plugin when this process first asks for it here; what is edited later is imported no more."""
    if where not in _used:
        _used[where] = digest.__wrapped__(where)  # the cached one is of the time of planning
    return _used[where]


def forget_loaded(file: Path) -> None:
    """Forget what a loose file was: it is about to be executed again."""
    _loaded.pop(file, None)
    _used.pop(file, None)
    digest.cache_clear()


def refuse_edited(plugins: Iterable[str]) -> None:
    """Refuse plugins, by their files, that were changed since this process loaded them: their key would be that of
    other code."""
    for top in {top for where in plugins for top in _parts.get(Path(where), ())}:
        files = sorted(top.rglob("*.py")) if top.is_dir() else [top] if top.is_file() else []
        if hashlib.sha256(_text(top, files)).digest() != _loaded[top]:
            raise UsbenchError(
                f"{top} was changed since this process loaded it, and what is loaded stays as it was: start the "
                "process anew (in a notebook: the kernel) and run again."
            )


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
    names: dict[str, set[str]] = {}  # the first part of a module's name → all that is imported of it
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [f"{node.module or ''}.{alias.name}".lstrip(".") for alias in node.names]
            if node.level:
                yield from (each for name in found for each in _modules(file.parents[node.level - 1], name))
                continue
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
            found = [node.value.partition(":")[0]]  # "module:Class", resolved when it is used
        for name in found:
            names.setdefault(name.partition(".")[0], set()).add(name.partition(".")[2])
    for name in sorted(names.keys() - sys.stdlib_module_names - {"usbench"}):
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # of a module without one, such as __main__
            continue
        if spec is not None and spec.origin and spec.origin.endswith(".py") and _followed(name, Path(spec.origin)):
            yield Path(spec.origin)
        for place in map(Path, (spec.submodule_search_locations or ()) if spec and spec.origin is None else ()):
            if _followed(name, place):  # a folder of modules without an __init__.py
                yield from (each for rest in sorted(names[name]) for each in _modules(place, rest))


def _modules(folder: Path, name: str) -> Iterator[Path]:
    """The modules that a dotted name in a folder may mean: the last parts may be of what is in one."""
    parts = name.split(".")
    for place in (folder.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)):
        yield from (file for file in (place.parent / f"{place.name}.py", place / "__init__.py") if file.is_file())


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
def told(
    what: str, plugins: Iterable[str], *, where: str = "", more: str = "", blamed: str = ""
) -> Iterator[None]:  # fmt: skip
    """Whatever a stranger's code raises, as a sentence with its file and line; `blamed` is who gave what the harness
    could not go on with, where no line of theirs raised it."""
    try:
        yield
    except (UsbenchError, OSError):
        raise
    except (Exception, SystemExit) as error:
        line = line_of(error, plugins) or (blamed and f" (of what {blamed} gave)")
        said = f"{type(error).__name__}: {error}{where}{line}{more}"
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
