"""Good files of every kind, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kinds import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, data_home: Path) -> Iterator[World]:
    """A release, its pack, a run on it and its export, made by the commands themselves."""
    yield make_world(tmp_path_factory.mktemp("good"))
