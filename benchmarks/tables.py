"""The tables of results/README.md: a published leaderboard as Markdown, a line a method, a column a test set.

    python benchmarks/tables.py results/breast/leaderboard.csv

A table is one training set and one protocol; rows whose pretraining saw images of a test set have one of their own,
with the baselines beside them again. Corrupted images are left out. Where more sets rows apart than loss, augmentation
and labels, such as folds, nothing is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

NAMES = {"busi": "BUSI", "breast": "BrEaST", "busbra": "BUS-BRA", "pocus": "POCUS"}
UNSEEN = {"in": "", "out": ", unseen", "out-transductive": ", labels unseen"}
BASELINES = ("none", "none-long")
SEEN = "out-transductive"


def tables(board: pd.DataFrame) -> dict[str, list[str]]:
    """The lines of each table, by what it is of."""
    found = {}
    board = board[~board["shift"].str.contains(":")]
    for (train, protocol), part in board.groupby(["train_data", "protocol"], sort=False):
        based = part[part.loss.isin(BASELINES)]
        method = part.groupby("pretrain_data")["shift"].transform(lambda shifts: SEEN in set(shifts))
        for seen, said in ((False, ""), (True, ", pretraining saw a test set's images")):
            own = part[(method == seen) & ~part.loss.isin(BASELINES)]
            if len(own):
                found[f"trained on {train}, {protocol}{said}"] = _table(pd.concat([based, own]), seen=seen)
    return found


def _table(rows: pd.DataFrame, *, seen: bool) -> list[str]:
    sets = rows.drop_duplicates("test_data").sort_values("shift", kind="stable").test_data
    columns = {name: set(rows[rows.test_data == name]["shift"]) for name in sets}
    heads = [f"{_named(n)}{UNSEEN[SEEN if seen and SEEN in shifts else min(shifts)]}" for n, shifts in columns.items()]
    lines = ["| labels | row | " + " | ".join(f"{head} | diff. [95 %]" for head in heads) + " |"]
    lines.append("|---" * (2 + 2 * len(heads)) + "|")
    methods = rows.assign(method=[_method(row) for row in rows.itertuples()])
    for (labels, _, method), part in methods.groupby(
        ["label_fraction", methods.loss.map(lambda loss: _place(str(loss))), "method"], sort=True
    ):
        cells = [_cell(part[part.test_data == name]) for name in columns]
        lines.append(f"| {labels:g} % | {method} | " + " | ".join(cells) + " |")
    return lines


def _place(loss: str) -> int:
    """Baselines stand first."""
    return BASELINES.index(loss) if loss in BASELINES else len(BASELINES)


def _method(row: object) -> str:
    loss, aug = str(getattr(row, "loss", "")), str(getattr(row, "aug", ""))
    return loss if loss in BASELINES else f"{loss} · {aug}"


def _named(pack: str) -> str:
    return NAMES.get(pack, pack)


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return " | "
    if len(rows) > 1:
        row = rows.iloc[0]
        where = f"{_method(row)} on {row.test_data} stands in {len(rows)} rows"
        raise SystemExit(f"{where}, as of folds: of these there is no table here.")
    (row,) = rows.to_dict("records")
    delta, low, high = (row[f"delta_vs_supervised{end}"] for end in ("", "_low", "_high"))
    interval = "" if pd.isna(low) else f" [{low:+.3f}, {high:+.3f}]"
    return f"{row['score_mean']:.3f} | " + ("" if pd.isna(delta) else f"{delta:+.3f}{interval}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("board", type=Path)
    for title, lines in tables(pd.read_csv(parser.parse_args().board)).items():
        print(f"{title}:\n", *lines, "", sep="\n")


if __name__ == "__main__":
    main()
