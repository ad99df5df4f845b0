"""What the options of a plugin mean, from the docstring of what builds it; nothing that it needs is imported."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from pathlib import Path

from usbench.hooks import Entry

OPTION = re.compile(r"^(?P<indent>\s*)(?P<name>\w+)(?:\s*\([^)]*\))?:\s+(?P<text>\S.*)$")


def explained(entry: Entry) -> dict[str, str]:
    """Option → what its line under `Args:` says; none where there is no such line."""
    lines = _docstring(entry).partition("Args:\n")[2].splitlines()
    found: dict[str, str] = {}
    name, depth = "", None
    for line in lines:
        if not line.strip():
            break
        begun = OPTION.match(line)
        if begun and (depth is None or len(begun["indent"]) <= depth):
            name, depth = begun["name"], len(begun["indent"])
            found[name] = begun["text"].strip()
        elif name:
            found[name] += f" {line.strip()}"
    return {key: text for key, text in found.items() if key in entry.options}


def _docstring(entry: Entry) -> str:
    """Of a class or a function, and of a class's `__init__` behind it."""
    if not isinstance(entry.factory, str):
        return inspect.getdoc(entry.factory) or ""
    module, _, name = entry.factory.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        tree = ast.parse(Path(spec.origin).read_text("utf-8")) if spec and spec.origin else ast.Module([], [])
    except (ImportError, OSError, ValueError, SyntaxError):
        return ""
    kinds = ast.ClassDef | ast.FunctionDef
    for node in (node for node in tree.body if isinstance(node, kinds) and node.name == name):
        own = [inner for inner in node.body if isinstance(inner, ast.FunctionDef) and inner.name == "__init__"]
        return "\n\n".join(ast.get_docstring(part) or "" for part in (node, *own))
    return ""
