"""Where packs live, and how a name on the command line becomes one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from usbench.data.pack import Pack, write_pack
from usbench.errors import UsbenchError
from usbench.hooks import Entry, Registry
from usbench.items import Dataset
from usbench.spec import Choice, key_of

Progress = Callable[[str, int, int | None], None]  # what, done, of


def data_home() -> Path:
    """USBENCH_DATA, else the user's data folder."""
    if home := os.environ.get("USBENCH_DATA"):
        return Path(home)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "usbench"


def options_of(entry: Entry, choice: Choice) -> dict[str, object]:
    """All options of a chosen plugin, the positional one in its place."""
    given = dict(choice.options)
    if choice.positional is not None:
        if not entry.options:
            raise UsbenchError(f"{entry.kind} '{entry.name}' takes no options, so '{choice}' cannot be.")
        given.setdefault(next(iter(entry.options)), choice.positional)
    return entry.parse(given)


def short_name(entry: Entry, choice: Choice) -> str:
    """A generated set's name in tables: its positional option matters, how many images it has does not."""
    if not entry.options:
        return entry.name
    return f"{entry.name}-{next(iter(options_of(entry, choice).values()))}"


def make_pack(entry: Entry, choice: Choice, path: Path, source: Path | None, size: int, progress: Progress) -> None:
    """Run a data set plugin and write its pack."""
    options = options_of(entry, choice)
    dataset = entry.build(**options)
    if not isinstance(dataset, Dataset):
        raise UsbenchError(
            f"data set '{entry.name}' built a {type(dataset).__name__}: it must build a usbench.Dataset."
        )
    name = short_name(entry, choice) if entry.generated else entry.name
    total = dataset.count(source)
    write_pack(
        path, dataset.items(source), size=size, classes=dataset.classes, generated=entry.generated,
        attributes={
            "dataset": name, "source": dataset.source, "licence": dataset.licence, "citation": dataset.citation,
            "importer": f"{entry.plugin}:{entry.name}", "version": dataset.version,
        },
        progress=lambda done: progress(name, done, total),
    )  # fmt: skip


def write(entry: Entry, choice: Choice, path: Path, source: Path | None, size: int, progress: Progress) -> Pack:
    """Make a pack at a path; a place that cannot be written is said in a sentence."""
    try:
        make_pack(entry, choice, path, source, size, progress)
    except OSError as error:
        at = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        if source is not None and at is not None and (at == source or source in at.parents):
            raise UsbenchError(
                f"{at} cannot be read ({error.strerror}): is {source} the whole official release of '{entry.name}'?"
            ) from error
        raise UsbenchError(
            f"the pack {path} cannot be written ({error.strerror or error}): name another file, or set USBENCH_DATA."
        ) from error
    return Pack(path)


def find_pack(registry: Registry, text: str, progress: Progress) -> Pack:
    """The pack that `text` names: a file, a pack in the data home, or a generated set, made if it is not there yet."""
    if text.endswith(".h5"):
        return Pack(Path(text))
    choice = Choice.parse(text)
    stored = data_home() / f"{choice.name}.h5"
    if stored.is_file() and choice == Choice(name=choice.name):
        return Pack(stored)
    entry = registry.get("dataset", choice.name)
    if not entry.generated:
        raise UsbenchError(
            f"the data set '{choice.name}' is not imported yet: "
            f"run 'usbench data import {choice.name} PATH' with the folder or zip of its official release."
        )
    options = options_of(entry, choice)
    size = int(str(options.get("size", 128)))
    path = data_home() / f"{short_name(entry, choice)}-{key_of({'options': options, 'source': entry.source})[:10]}.h5"
    if not path.is_file():
        return write(entry, choice, path, None, size, progress)
    return Pack(path)
