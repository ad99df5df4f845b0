"""What a stage is computed with is what its key names: plugins as their code is when this process first uses them, and
starting weights."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from usbench.errors import RunFailed, UsbenchError
from usbench.hooks import Registry
from usbench.runs.records import digest_of
from usbench.runs.store import Store
from usbench.source import digest, first_used
from usbench.whole import written

KIND_OF = {"loss": "loss", "backbone": "backbone", "protocol": "protocol", "aug": "augmentation"}

_loaded: dict[str, str] = {}  # file → its digest when this process registered it


def note_code(known: Registry) -> None:
    """Read the sources of what is registered: where a process outlives the planning, edits may come in between."""
    for entry in known.entries():
        with contextlib.suppress(OSError):
            _loaded.setdefault(entry.where, digest.__wrapped__(Path(entry.where)))


def check_code(identity: Mapping[str, Any], known: Registry) -> None:
    """Refuse to compute under a key that names other code than ours."""
    for part, kind in KIND_OF.items():
        said = identity.get(part) or []
        for each in said if isinstance(said, list) else [said]:
            where = known.get(kind, each["name"]).where
            used = first_used(Path(where))
            if {used, _loaded.get(where, used)} != {each["source"]}:
                raise RunFailed(
                    f"the {kind} '{each['name']}' ({where}) is not the code that was planned with: it was changed "
                    "since, or another version is installed here; run the same command again."
                )


def start_of(init: str) -> str:
    """Starting weights by content: a file's digest, not its name."""
    if init in ("random", "imagenet"):
        return init
    try:
        return "file:" + hashlib.sha256(Path(init).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise UsbenchError(
            f"--init {init} cannot be read ({error.strerror}): use random, imagenet or a .safetensors file."
        ) from None


def check_start(init: str, expected: str) -> None:
    """Refuse starting weights that are not those of the key."""
    if start_of(init) != expected:
        raise RunFailed(f"--init {init} was changed after the run was planned: run the same command again.")


def same_imagenet(store: Store, name: str, weights: Path) -> str:
    """The digest of published weights; refuses others than those that a store's first stage started from, since keys
    name them by a word."""
    found, note = digest_of(weights)[:16], store.root / "starts" / name.replace("/", "-")
    if not note.is_file():
        note.parent.mkdir(exist_ok=True)
        with written(note) as temporary:
            temporary.write_text(f"{found}\n", "utf-8")
    if (before := note.read_text("utf-8", "replace").strip()) != found:
        raise RunFailed(
            f"the ImageNet weights of '{name}' in {weights} (SHA-256 {found}) are not those that the stages of "
            f"{store.root} started from (SHA-256 {before}): name the file with --init, or another folder with --out."
        )
    return found
