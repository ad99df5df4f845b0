"""The data home: where packs lie."""

from __future__ import annotations

import os
from pathlib import Path

SHARERS = "USBENCH_SHARERS"  # how many workers share a GPU; set for each of them by who starts them


def data_home() -> Path:
    """USBENCH_DATA, else the user's data folder."""
    if home := os.environ.get("USBENCH_DATA"):
        return Path(home)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "usbench"


def stored_packs() -> list[Path]:
    """The packs in the data home."""
    return sorted(data_home().glob("*.h5"))
