"""What is kept of a finished stage: a record with a digest of every file, and a seal of its own."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from usbench.runs.lease import is_lease
from usbench.whole import written

RECORD = "record.json"
WEIGHTS = "weights.safetensors"  # of a finished training
STATE = "state.safetensors"  # of a training that goes on; there until its stage is recorded
STAGE = re.compile(r"[a-z]+-[0-9a-f]{1,64}")


def write_json(path: Path, value: Any) -> None:
    """Write JSON; the file is there whole or not at all."""
    with written(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", "utf-8")


def is_stage(name: str) -> bool:
    """Whether a text is of the form that stages' folders are called by: a kind and a key."""
    return STAGE.fullmatch(name) is not None


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tidy(part: Path) -> None:
    """Remove what processes were writing when they were killed."""
    for path in part.rglob(".*.tmp"):
        if not is_lease(path.relative_to(part)):
            path.unlink(missing_ok=True)


def digests_of(folder: Path, left_out: tuple[str, ...] = ()) -> dict[str, str]:
    """The SHA-256 of every file that a stage made, by its path in the folder; not of those with some endings."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        skipped = name.as_posix() in (RECORD, STATE) or is_lease(name) or name.name.endswith(left_out)
        if path.is_file() and not skipped:
            found[name.as_posix()] = digest_of(path)
    return found


def seal_of(record: dict[str, Any]) -> str:
    """The SHA-256 of a record without its seal."""
    text = json.dumps({k: v for k, v in record.items() if k != "seal"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
