"""What any data set must keep, whoever wrote it. A check's docstring is the promise."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from usbench.conformance import promise
from usbench.conformance.promise import listed, require, says_what_it_is
from usbench.data.home import build_dataset
from usbench.data.importing import Importer
from usbench.data.pack import Pack
from usbench.data.packing import write_pack
from usbench.errors import UsbenchError
from usbench.items import Dataset, Item
from usbench.spec import Choice

COUNT, SIZE = 8, 64


class Bench(promise.Bench):
    """A data set, and the first items of a generated one."""

    def build(self) -> Dataset:
        return build_dataset(self.entry, Choice(name=self.entry.name))

    @functools.cached_property
    def dataset(self) -> Dataset:
        return self.build()

    @functools.cached_property
    def items(self) -> list[Item]:
        return list(itertools.islice(self.dataset.items(None), COUNT)) if self.entry.generated else []


def says_where_it_is_from(bench: Bench) -> None:
    """It has a source, a licence and, unless it takes anybody's images, a citation."""
    wanted = ("source", "licence") if bench.dataset.generic else ("source", "licence", "citation")
    lacking = [name for name in wanted if not getattr(bench.dataset, name).strip()]
    require(not lacking, f"it has no {listed(lacking)}")


def makes_a_sound_pack(bench: Bench) -> str:
    """A generated set makes images, masks and facts of the right kind, and a pack that validates."""
    if not bench.entry.generated:
        return "not generated"
    require(bench.items, "it makes no image")
    for item in bench.items:
        _require_sound(item, bench.dataset.classes)
    dataset = bench.dataset
    attributes = {
        "dataset": bench.entry.name, "source": dataset.source, "licence": dataset.licence,
        "citation": dataset.citation, "importer": bench.entry.name, "version": dataset.version,
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        path = Path(folder, "pack.h5")
        write_pack(
            path, iter(bench.items), size=SIZE, classes=dataset.classes, attributes=attributes, generated=True
        )  # fmt: skip
        pack = Pack(path)
        pack.check()
        require(pack.count == len(bench.items), f"{len(bench.items)} items make a pack of {pack.count}")
    return ""


def _require_sound(item: Item, classes: tuple[str, ...]) -> None:
    where = f"of '{item.name}'"
    image = item.image
    require(image.ndim == 2 and image.dtype == np.uint8, f"the image {where} is {image.shape} {image.dtype}")
    for name, plane in (("mask", item.mask), ("sector", item.sector)):
        fits = plane is None or (plane.shape == image.shape and plane.dtype == np.bool_)
        require(fits, f"the {name} {where} is not a bool plane of the image's shape")
    require(-1 <= item.label < len(classes), f"the label {where} is {item.label}, and there are {len(classes)} classes")


def makes_the_same_again(bench: Bench) -> str:
    """A generated set, built anew, makes the same items."""
    if not bench.entry.generated:
        return "not generated"
    np.random.rand(3)
    again = itertools.islice(bench.build().items(None), COUNT)
    for one, other in zip(bench.items, again, strict=True):
        for field in dataclasses.fields(Item):
            first, second = getattr(one, field.name), getattr(other, field.name)
            same = np.array_equal(first, second, equal_nan=field.name in ("time", "fps", "pixel_mm"))
            require(same, f"{field.name} of '{one.name}' differs when it is made again")
    return ""


def refuses_an_empty_folder(bench: Bench) -> str:
    """An importer recognises nothing in an empty folder, and refuses it in one sentence."""
    if bench.entry.generated:
        return "generated"
    with TemporaryDirectory() as folder:
        require(not bench.dataset.recognises(Path(folder)), "it recognises an empty folder as its release")
        try:
            dataset = bench.build()
            dataset.count(Path(folder))
            found = sum(1 for _ in dataset.items(Path(folder)))
        except UsbenchError as error:
            text = str(error)
            require("\n" not in text and text.endswith((".", "?")), f"it refuses it with {text!r}, no sentence")
            return ""
    raise promise.Broken(f"it imports {found} images from an empty folder")


def says_how_its_images_lie(bench: Bench) -> str:
    """An importer says how the images of its release are called."""
    if not isinstance(bench.dataset, Importer):
        return "generated" if bench.entry.generated else "no Importer"
    require(bench.dataset.layout, "it has no layout")
    return ""


CHECKS = (
    says_what_it_is, says_where_it_is_from, makes_a_sound_pack, makes_the_same_again, refuses_an_empty_folder,
    says_how_its_images_lie,
)  # fmt: skip
