"""What a run names: packs that go together, each once, and the split file of each. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from usbench.data.pack import HEADROOM, Pack, side_of
from usbench.errors import UsbenchError, unknown
from usbench.spec import RunSpec


def refuse_sides(data: list[Pack], size: int) -> None:
    """Images that are trained on together are read at one side, and each set is tested at its own: it must be that."""
    small, *_, large = sorted([*data, data[0]], key=lambda pack: pack.size)
    if side_of(size, small.size) != side_of(size, large.size):
        raise UsbenchError(
            f"'{small.name}' is of {small.size} px and '{large.name}' of {large.size} px: at --size {size} the first "
            "would be trained on blurred and tested sharp; import both at one size, or run at "
            f"{int(small.size / HEADROOM)} px or less."
        )


def refuse_twice(data: list[Pack], ood: list[Pack], more: list[Pack]) -> None:
    """Each set once, none on two sides, and one name for one set among those that a table names."""
    for packs, mend in (([*data, *ood], "a target domain is never trained on"), (more, "name it once")):
        digests, names = [pack.digest for pack in packs], [pack.name for pack in packs]
        if twice := [pack.name for pack in packs if digests.count(pack.digest) > 1]:
            places = "--pretrain-data twice" if packs is more else "--data and --ood, or twice"
            raise UsbenchError(f"'{twice[0]}' stands in {places}: {mend}.")
        if alike := [pack for pack in packs if names.count(pack.name) > 1]:
            raise UsbenchError(
                f"two different sets are called '{alike[0].name}' ({alike[0].path} and {alike[1].path}): import one "
                "under a name of its own, for example folder:name=mine, or leave one out."
            )


def split_files(spec: RunSpec, data: list[Pack]) -> dict[str, str]:
    """The split file of each pack that has one: FILE for a single pack, PACK=FILE for several."""
    names = [pack.name for pack in data]
    files: dict[str, str] = {}
    for text in spec.split:
        name, equals, path = ("", "", text) if Path(text).is_file() else text.partition("=")
        if not (path if equals else text):
            raise UsbenchError(f"--split '{text}' names no file: write FILE, or PACK=FILE.")
        if not equals and len(data) > 1:
            raise UsbenchError(f"--split {text}: with several packs say whose it is, for example {names[0]}={text}.")
        if not equals:
            name, path = names[0], text
        if name not in names:
            raise unknown("pack", name, names, where=f"of --split {text}")
        if name in files:
            raise UsbenchError(f"'{name}' has two split files: give one.")
        files[name] = path
    if files and spec.fold:
        raise UsbenchError(f"--split {spec.split[0]} and --fold {spec.fold} exclude each other: give one.")
    return files
