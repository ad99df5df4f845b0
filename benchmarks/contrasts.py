"""Every two methods that stand beside each other in a published table: their paired difference on each test set.

    python benchmarks/contrasts.py results/breast/leaderboard.csv --csv results/breast/contrasts.csv

A line is one training set, label fraction and test set, or all test sets that count alike together; the difference is
image by image, over the seeds that both have, and its interval crosses patients with seeds. No p is adjusted for the
other lines: most of them ask what nobody asked before.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import pandas as pd

from usbench.errors import UsbenchError
from usbench.report.cells import Cell, cells
from usbench.report.compare import compare
from usbench.report.differences import pooled
from usbench.report.families import method_of
from usbench.report.files import write_csv
from usbench.report.folds import folded
from usbench.report.index import Index
from usbench.report.table import TRANSDUCTIVE
from usbench.share.publish import unpacked

WHERE = ("train_data", "label_fraction", "test_data", "shift", "protocol")


def contrasts(board: Path) -> pd.DataFrame:
    """A line a pair, of the scores that lie beside a published leaderboard."""
    with unpacked(board.with_name("scores.zip")) as store:
        every = folded(cells(Index([store]).results))
        beside = [_by_name(pair) for pair in itertools.combinations(every, 2) if _stand_beside(*pair)]
        together: dict[tuple[object, ...], list[tuple[Cell, Cell]]] = {}
        for a, b in beside:
            alike = (value for name, value in _where(a, b).items() if name != "test_data")
            together.setdefault((*alike, method_of(a), method_of(b)), []).append((a, b))
        several = [pairs for pairs in together.values() if len(pairs) > 1]
        return pd.DataFrame([_line(pairs) for pairs in (*([pair] for pair in beside), *several)])


def _by_name(pair: tuple[Cell, Cell]) -> tuple[Cell, Cell]:
    """The pair in one order on every test set, without which the sets would not come together."""
    first, second = sorted(pair, key=method_of)
    return first, second


def _stand_beside(first: Cell, second: Cell) -> bool:
    if first.row["arena"] != second.row["arena"]:
        return False
    try:
        compare([first], [second])
    except UsbenchError:  # they do not rank together
        return False
    return True


def _where(first: Cell, second: Cell) -> dict[str, object]:
    """Where a pair was trained and tested; a set that one of the two has seen without labels counts as seen."""
    shifts = first.row["shift"], second.row["shift"]
    return {name: first.row[name] for name in WHERE} | {"shift": TRANSDUCTIVE if TRANSDUCTIVE in shifts else shifts[0]}


def _line(pairs: list[tuple[Cell, Cell]]) -> dict[str, object]:
    first, second = zip(*pairs, strict=True)
    found = pooled(first, second)
    where = _where(*pairs[0]) | {"test_data": "+".join(a.row["test_data"] for a in first)}
    numbers = {"difference": found.mean, "low": found.low, "high": found.high, "p": found.p}
    return {**where, "a": method_of(first[0]), "b": method_of(second[0]), **numbers}


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("board", type=Path)
    parser.add_argument("--csv", type=Path, required=True)
    given = parser.parse_args()
    write_csv(contrasts(given.board), given.csv)


if __name__ == "__main__":
    main()
