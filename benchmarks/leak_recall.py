"""How many planted duplicates the leak guard finds: images of a pack, changed a little, looked for in the pack.

    python benchmarks/leak_recall.py PACK.h5 … [--images 300] [--csv leaks.csv]

Each image is changed as a copy in another release would be, letter-boxed anew and compared with the whole pack. What is
found beside the original and its known near-duplicates is counted too.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Console
from rich.table import Table

from usbench.data.leaks import alike_within
from usbench.data.likeness import SIDE, near_duplicates, thumbnails
from usbench.data.pack import Pack
from usbench.data.packing import letterbox, place
from usbench.data.sector import find_sector


def rescaled(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((round(image.shape[1] * 0.7), round(image.shape[0] * 0.7))))


def jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def cropped(image: np.ndarray) -> np.ndarray:
    down, across = (max(1, round(side * 0.05)) for side in image.shape)
    return image[down:, across:]


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rescaled to 70 %": rescaled,
    "flipped left-right": lambda image: image[:, ::-1],
    "flipped up-down": lambda image: image[::-1],
    "gain +20 %": lambda image: np.clip(image * 1.2, 0, 255).astype(np.uint8),
    "gain -20 %": lambda image: (image * 0.8).astype(np.uint8),
    "cropped by 5 % at two sides": cropped,
    "JPEG quality 60": jpeg,
    "all but up-down together": lambda image: jpeg(rescaled(cropped((image[:, ::-1] * 0.8).astype(np.uint8)))),
}


def native(pack: Pack, row: int) -> np.ndarray:
    """The image without its letter-box."""
    known = pack.table.iloc[row]
    height, width = (max(1, round(known[f"native_{side}"] * known.scale)) for side in ("height", "width"))
    return np.asarray(
        pack.images[row, known.offset_y : known.offset_y + height, known.offset_x : known.offset_x + width]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", type=Path, nargs="+", metavar="PACK")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    found = pd.DataFrame([line for path in given.packs for line in lines(Pack(path), given.images)])
    table = Table("set", "change", "found", "of", "share", "others", title="Planted duplicates")
    for line in found.itertuples():
        words = map(str, (line.set, line.change, line.found, line.of, f"{line.found / line.of:.1%}", line.others))
        table.add_row(*words)
    Console().print(table)
    if given.csv:
        found.to_csv(given.csv, index=False)


def lines(pack: Pack, images: int) -> Iterator[dict[str, Any]]:
    """A line a change: how many of the changed images were found, and what else was taken for a duplicate."""
    rows = np.sort(np.random.default_rng(0).permutation(pack.count)[:images])
    sectors = pack.plane("sector", np.arange(pack.count))
    own = thumbnails(pack.images, sectors, np.empty((pack.count, SIDE, SIDE), np.uint8))
    known = {(row, row) for row in rows.tolist()}
    known |= {pair for i, j in alike_within(pack).tolist() for pair in ((i, j), (j, i))}
    for name, change in CHANGES.items():
        changed = [np.ascontiguousarray(change(native(pack, row))) for row in rows]
        squares = [place(image, letterbox(*image.shape, pack.size), pack.size) for image in changed]
        inside = [place(find_sector(image), letterbox(*image.shape, pack.size), pack.size) for image in changed]
        planted = thumbnails(np.stack(squares), np.stack(inside), np.empty((len(rows), SIDE, SIDE), np.uint8))
        pairs = [(int(rows[i]), int(j)) for i, j in near_duplicates(planted, own)]
        found = len({i for i, j in pairs if i == j})
        others = len([pair for pair in pairs if pair not in known])
        yield {"set": pack.name, "change": name, "found": found, "of": len(rows), "others": others}


if __name__ == "__main__":
    main()
