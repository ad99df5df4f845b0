"""A method against itself: how often are three seeds of the row without pretraining called better than three others?

    usbench run --loss none --seeds 6 --out runs/aa
    python benchmarks/aa_test.py runs/aa

Every split of the six seeds into three and three, for every label fraction and test set, is a comparison in which
nothing is better. The order of the seeds pairs them. An honest test at 0.05 calls about one in twenty better.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

from rich.console import Console
from rich.table import Table

from usbench.evaluate.statistics import crossed_interval
from usbench.report.cells import cells
from usbench.report.index import Index
from usbench.runs.store import Store

LEVEL = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    given = parser.parse_args()
    table = Table("labels", "test set", "splits", f"p < {LEVEL}", "smallest p")
    called = total = 0
    for cell in cells(Index([Store(given.store).check_schema()]).results):
        seeds = cell.seeds
        if cell.row["loss"] != "none" or len(seeds) < 4:
            continue
        half = len(seeds) // 2
        found = [
            crossed_interval(
                cell.values(first) - cell.values([s for s in seeds if s not in first]), cell.scores.groups
            ).p
            for first in combinations(seeds, half)
            if seeds[0] in first  # the other half of the splits is the same with the sides changed
        ]
        below = sum(p < LEVEL for p in found)
        called, total = called + below, total + len(found)
        place = (f"{cell.row['label_fraction']:g} %", str(cell.row["test_data"]))
        table.add_row(*place, str(len(found)), str(below), f"{min(found):.3f}")
    Console().print(table)
    Console().print(f"{called} of {total} comparisons called different ({called / max(total, 1):.1%})")


if __name__ == "__main__":
    main()
