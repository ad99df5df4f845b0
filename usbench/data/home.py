"""Where packs live, and how a name on the command line becomes one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from usbench.data.pack import Pack
from usbench.data.packing import write_pack
from usbench.data.place import data_home
from usbench.data.release import NotThisSet
from usbench.data.sector import with_sector
from usbench.errors import UsbenchError, about
from usbench.hooks import Entry, Registry, registry
from usbench.items import Dataset
from usbench.source import told
from usbench.spec import Choice, key_of

Progress = Callable[[str, int, int | None], None]  # what, done, of


class NotImported(UsbenchError):
    """A data set that has to be downloaded and imported first."""

    def __init__(self, name: str, source: str = "") -> None:
        super().__init__(
            f"the data set '{name}' is not imported yet: run 'usbench data import {name} PATH' with the folder or zip "
            f"of its official release{f' from {source}' if source else ''}."
        )
        self.name = name


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


def build_dataset(entry: Entry, choice: Choice) -> Dataset:
    """The data set of a chosen plugin, with its options."""
    with told(f"data set '{entry.name}'", [entry.where]):
        dataset = entry.build(**options_of(entry, choice))
    if not isinstance(dataset, Dataset):
        raise UsbenchError(
            f"data set '{entry.name}' built a {type(dataset).__name__}: it must build a usbench.Dataset."
        )
    return dataset


def make_pack(entry: Entry, dataset: Dataset, name: str, path: Path, source: Path | None, size: int, progress: Progress
) -> None:  # fmt: skip
    """Write the pack of a data set."""
    try:
        total = dataset.count(source)
    except NotThisSet as error:
        raise UsbenchError(f"{error} {_fitting(source, entry.name, dataset.generic)}") from error
    items = dataset.items(source)
    if not entry.generated and dataset.finds_sector:
        items = map(with_sector, items)
    write_pack(
        path, items, size=size, classes=dataset.classes, generated=entry.generated, skipped=lambda: dataset.skipped,
        attributes={
            "dataset": name, "source": dataset.source, "licence": dataset.licence, "citation": dataset.citation,
            "importer": f"{entry.plugin}:{entry.name}", "version": dataset.version,
            "people": dataset.people or ("" if entry.generated or dataset.generic else entry.name),
        },
        progress=lambda done: progress(name, done, total),
    )  # fmt: skip


def _fitting(source: Path | None, tried: str, generic: bool) -> str:
    """Which importers know what lies at a path: the named sets, else those that take anything of a form."""
    fits: dict[bool, list[str]] = {True: [], False: []}
    for entry in registry().entries("dataset"):
        if source is not None and not entry.generated and entry.name != tried:
            try:
                dataset = entry.build()
                if dataset.recognises(source):
                    fits[dataset.generic].append(f"{entry.name}:NAME" if dataset.generic else entry.name)
            except (Exception, SystemExit):  # noqa: BLE001 - a stranger's importer may raise anything, and fits nothing
                continue
    if found := fits[False] or fits[True]:
        return "This looks like a release for " + " or ".join(f"'usbench data import {name}'" for name in found) + "."
    return "Name the folder or zip of your own files." if generic else f"Is it the whole official release of '{tried}'?"


def import_pack(
    entry: Entry, choice: Choice, path: Path | None, source: Path, size: int, progress: Progress, *, skip_broken: bool,
    force: bool = False,
) -> Pack:  # fmt: skip
    """Import an official release as a pack, into the data home where no path is given.

    Sets that an importer of anything of a form gave one name may be different ones: `force` replaces what is there. A
    known set's name is no name for them.
    """
    if not source.exists():
        raise UsbenchError(f"there is nothing at {source}: name the folder or zip of the official release.")
    dataset = build_dataset(entry, choice)
    dataset.skip_broken = skip_broken
    name = dataset.name or entry.name
    if not all(c.isalnum() or c in "-_" for c in name):
        raise UsbenchError(f"a pack cannot be called '{name}': use letters, digits, '-' and '_'.")
    others = {other.name.lower() for other in registry().entries("dataset") if other.name != entry.name}
    if dataset.generic and name.lower() in others:
        raise UsbenchError(f"'{name}' is the name of a known data set: give another, as in '{entry.name}:mine'.")
    place = data_home() / f"{name}.h5"
    if path is None and dataset.generic and place.is_file() and not force:
        raise UsbenchError(
            f"there is a set '{name}' in {place} already: name this one, as in '{entry.name}:NAME', or replace it with "
            "--force."
        )
    return write(entry, dataset, name, path or place, source, size, progress)


def write(
    entry: Entry, dataset: Dataset, name: str, path: Path, source: Path | None, size: int, progress: Progress
) -> Pack:
    """Make a pack at a path; a place that cannot be written is said in a sentence."""
    where = f" (in {source})" if source is not None else ""
    try:
        with about("in", source), told(f"data set '{entry.name}'", [entry.where], where=where):
            make_pack(entry, dataset, name, path, source, size, progress)
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


def stored_pack(text: str) -> Path | None:
    """The imported pack of that name in the data home, if there is one."""
    choice = Choice.parse(text)
    path = data_home() / f"{choice.name}.h5"
    return path if choice == Choice(name=choice.name) and path.is_file() else None


def find_pack(registry: Registry, text: str, progress: Progress) -> Pack:
    """The pack that `text` names: a file, a pack in the data home, or a generated set, made if it is not there yet."""
    if text.endswith(".h5"):
        return Pack(Path(text))
    if stored := stored_pack(text):
        return Pack(stored)
    choice = Choice.parse(text)
    entry = registry.get("dataset", choice.name)
    if not entry.generated:
        raise NotImported(choice.name, str(getattr(entry.resolve(), "source", "")))
    options = options_of(entry, choice)
    size = int(str(options.get("size", 128)))
    path = data_home() / f"{short_name(entry, choice)}-{key_of({'options': options, 'source': entry.source})[:10]}.h5"
    if not path.is_file():
        return write(entry, build_dataset(entry, choice), short_name(entry, choice), path, None, size, progress)
    return Pack(path)


def any_pack(registry: Registry, text: str) -> Pack:
    """The pack that a user means by a file, whatever it is called, or by the name of a data set."""
    return Pack(Path(text)) if Path(text).is_file() else find_pack(registry, text, lambda *_: None)
