"""How many phantom images a second one core makes.

OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/perf/phantom_speed.py --size 128
"""

from __future__ import annotations

import argparse
import time

from usbench_phantom.dataset import Phantom


def main() -> None:
    """Measure and print a line a scanner."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--patients", type=int, default=94)
    given = parser.parse_args()
    for domain in ("l7", "l12", "c5"):
        for _ in Phantom(domain, patients=3, size=given.size).items(None):
            pass  # warms the FFT plans
        began = time.perf_counter()
        images = sum(1 for _ in Phantom(domain, patients=given.patients, size=given.size).items(None))
        print(f"{domain}: {images} images, {images / (time.perf_counter() - began):.0f} a second at {given.size} px")


if __name__ == "__main__":
    main()
