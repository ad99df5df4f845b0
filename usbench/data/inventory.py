"""What a pack holds, as plain facts: for `data list`, `data info`, and programs that read their JSON."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from usbench.data.pack import Pack
from usbench.data.splits import Division, Wanted, divide, fold_split, split
from usbench.errors import UsbenchError

FRACTIONS = (20, 50, 100)
ORIGIN = ("source", "licence", "citation", "importer", "version")


def listed(path: Path) -> dict[str, Any]:
    """One line of a list: name, images, licence; or why the file is no pack."""
    try:
        pack = Pack(path)
    except UsbenchError as error:
        return {"path": str(path), "trouble": str(error)}
    licence = str(pack.attributes["licence"])
    return {"name": pack.name, "images": pack.count, "size": pack.size, "licence": licence, "path": str(path)}


def described(pack: Pack) -> dict[str, Any]:
    """Everything that can be counted in a pack, its test folds, and its splits of fold 0 and seed 0."""
    table = pack.table
    lesions, sector = _planes(pack)
    count, reasons = pack.skipped
    return {
        **{"name": pack.name, "path": str(pack.path), "images": pack.count, "size": pack.size},
        **{"annotated": int(table.has_mask.sum()), "with_lesion": lesions},
        "labels": {**{c: int((table.label == i).sum()) for i, c in enumerate(pack.classes)}, **_unknown(pack)},
        **{f"{field}s": _distinct(table[field]) for field in ("patient", "video", "group")},
        **{f"{field}s": _counts(table[field]) for field in ("device", "tag")},
        "folds": {str(k): int(v) for k, v in table.fold[table.fold >= 0].value_counts().sort_index().items()},
        **{"sector_share": round(sector, 4), "splits": _splits(pack), "test_folds": _test_folds(pack)},
        "without_device": _without_device(pack),
        "skipped": {"count": count, "reasons": reasons},
        **{key: str(pack.attributes[key]) for key in ORIGIN},
        "digest": pack.digest,
    }


def lines(facts: dict[str, Any]) -> Iterator[str]:
    """The facts as a person reads them."""
    yield f"{facts['name']}: {facts['images']} images, {facts['size']} px, {facts['path']}"
    yield f"  labels     {_joined(facts['labels']) or 'none'}"
    yield f"  masks      {facts['annotated']} annotated, {facts['with_lesion']} with a lesion"
    yield f"  patients   {facts['patients'] or 'unknown'}, groups {facts['groups']}, videos {facts['videos'] or 'none'}"
    for field in ("devices", "tags", "folds"):
        if facts[field]:
            yield f"  {field:<10} {_joined(facts[field])}"
    yield f"  sector     {100 * facts['sector_share']:.1f} % of the image area"
    if "trouble" in facts["splits"]:
        yield f"  splits     {facts['splits']['trouble']}"
    else:
        yield f"  test folds {_joined(facts['test_folds'])}"
        for fraction, sides in facts["splits"].items():
            yield f"  {fraction:>3} %      {_joined(sides)}"
    for device, sides in facts["without_device"].items():
        yield f"  without    {device}: {sides.get('trouble') or _joined(sides)}"
    if facts["skipped"]["count"]:
        yield f"  left out   {facts['skipped']['count']}"
        reasons = list(facts["skipped"]["reasons"].values())
        yield from (f"             {reasons.count(reason)}: {reason}" for reason in sorted(set(reasons)))
    yield from (f"  {key:<10} {facts[key]}" for key in (*ORIGIN, "digest"))


def _planes(pack: Pack) -> tuple[int, float]:
    """How many images have a lesion, and the mean share of the image area that is insonified."""
    area = (pack.table.native_height * pack.table.native_width * pack.table.scale**2).to_numpy()
    lesions, shares = 0, []
    for start in range(0, pack.count, 256):
        part = np.arange(start, min(pack.count, start + 256))
        lesions += int(pack.plane("mask", part).any(axis=(1, 2)).sum())
        shares.append(pack.plane("sector", part).sum(axis=(1, 2)) / area[part])
    return lesions, float(np.minimum(np.concatenate(shares), 1).mean())


def _unknown(pack: Pack) -> dict[str, int]:
    unknown = int((pack.table.label < 0).sum())
    return {"unknown": unknown} if unknown else {}


def _distinct(values: Any) -> int:
    return int(values[values != ""].nunique())


def _counts(values: Any) -> dict[str, int]:
    return {str(k): int(v) for k, v in values[values != ""].value_counts().items()}


def _splits(pack: Pack) -> dict[str, Any]:
    try:
        division = Division(wanted=Wanted.fitting(pack))
        parts = {fraction: split(pack, division, fraction=fraction, seed=0) for fraction in FRACTIONS}
    except UsbenchError as error:
        return {"trouble": str(error)}
    sides = ("train", "labelled", "inner", "test")
    return {str(fraction): {side: len(getattr(part, side)) for side in sides} for fraction, part in parts.items()}


def _test_folds(pack: Pack) -> dict[str, int]:
    """Images of each test fold, after those that share a group with one have joined it."""
    sizes: dict[str, int] = {}
    with suppress(UsbenchError):  # the first fold that does not exist
        for fold in itertools.count():
            sizes[str(fold)] = len(fold_split(pack, fold)[1])
    return sizes


def _without_device(pack: Pack) -> dict[str, dict[str, Any]]:
    """The sides of fold 0 where a device is left out, for each of several devices."""
    devices = sorted({str(name) for name in pack.table.device if name})
    found: dict[str, dict[str, Any]] = {}
    for device in devices if len(devices) > 1 else []:
        try:
            sides = divide(pack, Division(device=device))
        except UsbenchError as error:
            found[device] = {"trouble": str(error)}
        else:
            found[device] = {side: len(getattr(sides, side)) for side in ("train", "test", "unseen")}
    return found


def _joined(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
