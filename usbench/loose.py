"""Loose files as plugins: how they are imported, and what they share."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Shared:
    """Finds what begins with an underscore in a folder of loose files, so that these can share it."""

    folder: Path

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """Where a module is, for Python's import."""
        return PathFinder.find_spec(name, [str(self.folder)]) if path is None and name.startswith("_") else None


def shared_names(folder: Path) -> set[str]:
    """The files and packages in a folder that its loose files may share."""
    return {path.name for path in folder.glob("_[!_]*") if path.suffix == ".py" or path.is_dir()}


def import_file(file: Path) -> ModuleType:
    """A file as a module, under a name of its own."""
    name = f"usbench_loose_{file.stem}_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
