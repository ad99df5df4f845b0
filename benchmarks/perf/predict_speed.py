"""How many images a second `usbench predict` does, and whether its memory grows with the images.

OMP_NUM_THREADS=1 taskset -c 0,1 python benchmarks/perf/predict_speed.py --export FOLDER --size 128
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from usbench.share.predict import predict

COUNTS = (100, 400, 1600)


def write_images(folder: Path, count: int, size: int) -> None:
    """Speckle with a dark blob; a hundred kinds of them."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    kinds = []
    for _ in range(min(count, 100)):
        y, x = rng.uniform(0.3, 0.7, 2) * size
        dark = (rows - y) ** 2 + (columns - x) ** 2 < (rng.uniform(0.1, 0.2) * size) ** 2
        speckle = gaussian_filter(rng.rayleigh(70, (size, size)), 1)
        kinds.append(np.where(dark, 0.3 * speckle, speckle).clip(0, 255).astype(np.uint8))
    folder.mkdir()
    for k in range(count):
        Image.fromarray(kinds[k % len(kinds)]).save(folder / f"{k:05d}.png")


def peak_mib() -> float:
    """The most memory that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure more and more images in one process and print a line each: the peak must stay where it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--export", type=Path, required=True, help="An exported folder.")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--no-overlays", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_images(root / "first", 20, given.size)
        predict(given.export, root / "first", root / "first-out")  # loads libraries, and the code of the kernels
        for count in COUNTS:
            write_images(root / str(count), count, given.size)
            began = time.perf_counter()
            predict(
                given.export, root / str(count), root / f"{count}-out", batch=given.batch,
                overlays=not given.no_overlays,
            )  # fmt: skip
            rate = count / (time.perf_counter() - began)
            print(f"{count} images at {given.size} px: {rate:.0f} images/s, peak {peak_mib():.0f} MiB")


if __name__ == "__main__":
    main()
