"""Whether a faster way scores as a slower one: the rows of two stores that differ in nothing else, image by image.

usbench run --loss none --seeds 3 --out auto
usbench run --loss none --seeds 3 --precision float32 --out float32
python benchmarks/perf/accuracy.py auto float32 --csv results/perf/accuracy.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from rich.console import Console

from usbench.evaluate.statistics import holm
from usbench.report.cells import Cell, cells, shared_seeds
from usbench.report.differences import difference
from usbench.report.results import results
from usbench.report.table import plain_table
from usbench.runs.store import Store

PLACE = ("loss", "aug", "label_fraction", "test_data")
NAMES = {"difference": "mean", "low": "low", "high": "high", "p": "p"}


def rows_of(folder: Path) -> dict[tuple[object, ...], Cell]:
    """The rows of a store by what they are in both."""
    store = Store(folder)
    tested = sorted(path.parent.name for path in store.stages.glob("evaluate-*/record.json"))
    return {tuple(cell.row[name] for name in PLACE): cell for cell in cells(results(store, tested))}


def main() -> None:
    """Print the paired differences, with intervals over patients crossed with seeds, and p after Holm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    first, second = rows_of(given.first), rows_of(given.second)
    found = []
    for place in sorted(first.keys() & second.keys(), key=str):
        both = (first[place], second[place])
        seeds, estimate = shared_seeds(both), difference(*both)
        means = {name: cell.mean_over(seeds) for name, cell in zip(("first", "second"), both, strict=True)}
        known = {name: getattr(estimate, of) for name, of in NAMES.items()}
        found.append({**dict(zip(PLACE, place, strict=True)), "seeds": len(seeds), **means, **known})
    if not found:
        parser.error(f"{given.first} and {given.second} share no row: name the --out of two runs of the same methods")
    table = pd.DataFrame(found)
    table["p_holm"] = holm(table.p.to_numpy())
    shown = plain_table(
        *table.columns, title=f"{given.first.name} less {given.second.name}: mean Dice of lesion images"
    )
    for row in table.itertuples(index=False):
        shown.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    Console(width=160).print(shown)
    if given.csv:
        table.to_csv(given.csv, index=False, float_format="%.4f", lineterminator="\n")


if __name__ == "__main__":
    main()
