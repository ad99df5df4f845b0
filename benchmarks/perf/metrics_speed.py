"""How long all metrics of one image take, HD95 and ASSD among them.

OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/perf/metrics_speed.py --size 224
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.ndimage import gaussian_filter

from usbench.evaluate.segmentation import score_mask

KINDS = ("outline", "ragged", "speckled")


def pair(rng: np.random.Generator, size: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a truth: smooth lesions, a ragged prediction, or one of scattered pixels."""
    rows, columns = np.mgrid[:size, :size] / size

    def blob(wobble: float) -> np.ndarray:
        noise = gaussian_filter(rng.normal(size=(size, size)), size / 25) * size / 8
        y, x = rng.uniform(0.4, 0.6, 2)
        return np.hypot(rows - y, columns - x) + wobble * noise < rng.uniform(0.1, 0.25)

    truth = blob(0.02)
    predicted = blob(0.02 if kind == "outline" else 0.1)
    return (predicted | (rng.random((size, size)) < 0.2) if kind == "speckled" else predicted), truth


def milliseconds(size: int, kind: str, images: int) -> tuple[float, float]:
    """The mean and the largest time of `score_mask`, which makes every metric."""
    rng = np.random.default_rng(0)
    pairs = [pair(rng, size, kind) for _ in range(images)]
    score_mask(*pairs[0])
    times = []
    for predicted, truth in pairs:
        began = time.perf_counter()
        score_mask(predicted, truth)
        times.append(1000 * (time.perf_counter() - began))
    return float(np.mean(times)), float(np.max(times))


def main() -> None:
    """Measure and print a line a kind of mask."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=200)
    given = parser.parse_args()
    for kind in KINDS:
        mean, most = milliseconds(given.size, kind, given.images)
        print(f"{kind}: {mean:.2f} ms an image at {given.size} px, at most {most:.2f}, all metrics together")


if __name__ == "__main__":
    main()
