"""How long the main job takes: from nothing, with its phantoms there, and with everything cached.

python benchmarks/perf/quick_run.py --csv results/perf/quick.csv
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

JOB = ["run", "--loss", "rcl", "--aug", "freq"]
TIMES = 3  # that what is cached is asked for


def main() -> None:
    """Time the command as a user types it, in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        home = {**os.environ, "USBENCH_DATA": str(Path(place) / "data")}
        for what, store in [("from nothing", "first"), ("phantoms there", "second"), *[("cached", "second")] * TIMES]:
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "usbench", *JOB, "--out", str(Path(place) / store)], env=home, check=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            rows.append({"what": what, "seconds": round(time.perf_counter() - began, 2)})
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if given.csv:
        table.to_csv(given.csv, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
