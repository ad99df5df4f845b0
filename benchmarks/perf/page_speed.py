"""How long the page of a large leaderboard takes to build, and in a browser to open and to sort.

OMP_NUM_THREADS=1 python benchmarks/perf/page_speed.py --out many
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "report"))

from browser import chromium  # noqa: E402 - of the tests
from made_up import board, made_up_pack  # noqa: E402

from usbench.runs.store import Store  # noqa: E402

LOSSES, SETS, FRACTIONS, SEEDS = 40, 4, (20.0, 50.0, 100.0), (0, 1, 2)
PIXELS = 128
SORT = """
const done = arguments[0], began = performance.now();
document.querySelector("table.board th.c-score button").click();
document.body.getBoundingClientRect();
requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
"""
OPEN = "const of = performance.getEntriesByType('navigation')[0]; return of.loadEventEnd - of.startTime"


def synthesise(folder: Path) -> Store:
    """A store of made-up scores and masks, and the packs that they are of."""
    store = Store(folder / "store").open()
    if not any(store.stages.iterdir()):
        packs = {
            f"set-{k}": made_up_pack(folder / "home" / f"set-{k}.h5", f"set-{k}", size=PIXELS) for k in range(SETS)
        }
        board(store, ["none", "none-long", *(f"loss-{k:02d}" for k in range(LOSSES - 2))], packs,
              fractions=FRACTIONS, seeds=SEEDS)  # fmt: skip
    return store


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="an empty folder for the records and the page")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    store, page = synthesise(folder), (folder / "page.html").resolve()
    (store.root / "index.json").unlink(missing_ok=True)
    words = [sys.executable, "-m", "usbench", "leaderboard", str(store.root), "--html", str(page)]
    took = []
    for _ in range(2):
        began = time.perf_counter()
        subprocess.run(
            words, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "USBENCH_DATA": str(folder / "home")}
        )
        took.append(time.perf_counter() - began)
    print(f"{LOSSES} rows × {SETS} sets × {len(FRACTIONS)} fractions: built in {took[0]:.1f} s, with the index "
          f"{took[1]:.1f} s, {page.stat().st_size / 2**20:.2f} MiB")  # fmt: skip
    with chromium() as browser:
        browser.get(page.as_uri())
        opened = browser.execute_script(OPEN)
        sorted_in = browser.execute_async_script(SORT)
    print(f"opened in {opened / 1000:.2f} s, sorted in {sorted_in / 1000:.2f} s")


if __name__ == "__main__":
    main()
