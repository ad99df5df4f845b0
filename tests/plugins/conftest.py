"""Ways to import a miniature release: to items, and to a pack by the command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from usbench.data.pack import Pack
from usbench.hooks import Registry
from usbench.items import Dataset, Item

PACKAGES = "usbench_breast,usbench_organs,usbench_folder"


@pytest.fixture
def importers() -> Registry:
    """A registry with the importers of this repository, installed or not."""
    registry = Registry()
    registry.load_modules(PACKAGES)
    return registry


@pytest.fixture
def read(importers: Registry) -> Callable[..., dict[str, Item]]:
    """`read("busi", path)` → the items by name; `read.last` is the data set that gave them."""

    def call(name: str, path: Path, **options: Any) -> dict[str, Item]:
        dataset: Dataset = importers.get("dataset", name).build(**options)
        call.last = dataset  # type: ignore[attr-defined]
        count = dataset.count(path)
        items = list(dataset.items(path))
        assert count in (None, len(items))
        return {item.name: item for item in items}

    return call


@pytest.fixture
def imported(
    usbench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    """`imported("busi", path, …)` → the pack, or how the command ended where it refused."""
    monkeypatch.setenv("USBENCH_PLUGINS", PACKAGES)
    output = tmp_path / "out" / "made.h5"

    def call(name: str, path: Path, *words: str) -> Any:
        said = usbench("data", "import", name, path, "-o", output, "--size", "64", *words)
        if said.code:
            assert not output.exists() and not list(output.parent.glob(".*")), "something half-written stays"
            return said
        return Pack(output)

    yield call
