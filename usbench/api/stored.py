"""`usbench.load`, `leaderboard` and `compare`: what was computed before, from Python."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape

from usbench.api.result import Result
from usbench.errors import UsbenchError, text_of, texts_of
from usbench.evaluate.statistics import Estimate
from usbench.report import compare as pairs
from usbench.report.cells import cells
from usbench.report.compare import Comparison
from usbench.report.families import families, method_of
from usbench.report.files import one_line
from usbench.report.folds import pooled_folds
from usbench.report.index import Index
from usbench.report.kept import together
from usbench.report.nearest import runs_meant
from usbench.report.shown import Part, Shown, words
from usbench.report.summary import read_summary
from usbench.report.table import interval, plain_table
from usbench.runs.store import Store
from usbench.share.publish import ARCHIVE, opened
from usbench.spec import RunSpec

PathLike = str | os.PathLike[str]


def load(folder: PathLike) -> Result:
    """The results of a run's folder, or of all that a store holds, as `usbench.run` returns them."""
    path = Path(text_of(folder, "load:"))
    if (path / "run.json").is_file():
        return of_run(path)
    if not (path / "store.json").is_file() and not (path / ARCHIVE).is_file():
        near = runs_meant(str(path), [path.parent, Path("runs")])
        mend = f"did you mean {near}?" if near else "name one that 'usbench run' printed, or its --out."
        raise UsbenchError(f"{path} is no run's folder and no store: {mend}")
    return of_stores([path])


def leaderboard(*folders: PathLike) -> pd.DataFrame:
    """All results of one or several stores as one table, a row a setting."""
    return of_stores([Path(text_of(folder, "leaderboard:")) for folder in folders]).leaderboard


def of_run(folder: Path) -> Result:
    """A run as its folder tells of it."""
    store = Store(folder.resolve().parent).check_schema()
    try:
        summary = read_summary(folder, store)
        return Result.of_summary(summary, store, RunSpec.model_validate(summary.run["spec"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UsbenchError(
            f"{folder / 'run.json'} cannot be read ({type(error).__name__}: {why}): run the same command again."
        ) from error


def of_stores(folders: Sequence[Path]) -> Result:
    """Everything finished in some stores; what is half-written is named."""
    if not folders:
        raise UsbenchError("no store is named: give the --out folder of a run, for example 'usbench leaderboard runs'.")
    stores = [opened(folder) for folder in dict.fromkeys(folders)]
    index = Index(stores)
    every = cells(index.results, index.memo, [tests for store in stores for tests in together(store.root)])
    if not every:
        broken = f" ({len(index.broken)} half-written)" if index.broken else ""
        raise UsbenchError(
            f"no finished result in {', '.join(map(str, folders))}{broken}: run something with --out first."
        )
    found = Result(folders[0], stores[0], every, index.broken, beside=stores[1:])
    _ = (
        *found.parts(),
        found.leaderboard,
        *(f.pairs for f in families(every) if f.enough),
    )  # so that the index holds their numbers
    index.save()
    return found


def compare(first: Any, second: Any, *, stores: PathLike | Sequence[PathLike] = ()) -> Compared:
    """One row less another on the same images.

    Each is a key of a leaderboard, the beginning of one, the folder of a run, or what `usbench.run` returned. Keys are
    looked for in `stores`, or else beside the runs that are named, or else in `runs`.
    """
    names = [text_of(each, "compare:") for each in (first, second)]
    runs = [Path(name).resolve().parent for name in names if (Path(name) / "run.json").is_file()]
    places = [Path(store) for store in texts_of(stores, "stores=")] or list(dict.fromkeys(runs)) or [Path("runs")]
    held = [opened(place) for place in places]
    every = cells(Index(held).results)
    every += pooled_folds(every)
    mine, theirs = (pairs.find(name, every, held) for name in names)
    return Compared(pairs.compare(mine, theirs))


class Compared(Shown):
    """Two rows side by side: `table` has a line a test set, `images` those that differ most, `notes` what to know."""

    def __init__(self, found: list[Comparison]) -> None:
        self._found = found
        self.notes = [one_line(note) for note in pairs.notes(found)]

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """Both means, the paired difference with its interval, and the tests."""
        lines = []
        for pair in self._found:
            row, estimate = pair.first.row, pair.estimate
            means = {name: pairs.mean_over(c, pair.seeds).mean for name, c in (("a", pair.first), ("b", pair.second))}
            lines.append(
                {
                    "test_data": row["test_data"], "shift": row["shift"], "label_fraction": row["label_fraction"],
                    "metric": pair.first.primary, **means, "difference": estimate.mean, "low": estimate.low,
                    "high": estimate.high, "p": estimate.p, "signed_rank_p": pair.signed_rank,
                    "seeds": len(pair.seeds),
                }
            )  # fmt: skip
        return pd.DataFrame(lines)

    @functools.cached_property
    def images(self) -> pd.DataFrame:
        """The images that differ most, of each line of the table."""
        rows = [
            (p.first.row["test_data"], p.first.row["shift"], p.first.row["label_fraction"], name, a, b, a - b)
            for p in self._found
            for name, a, b in p.images
        ]
        return pd.DataFrame(rows, columns=["test_data", "shift", "label_fraction", "name", "a", "b", "difference"])

    def parts(self) -> Iterator[Part]:
        """The table, the images that differ most, and the notes."""
        names = [
            f"{method_of(cell)} ({cell.row['setting'][:8]})" for cell in (self._found[0].first, self._found[0].second)
        ]
        title = escape(one_line(f"{self._found[0].first.primary}: A is {names[0]}, B is {names[1]}"))
        heads = ("tested on", "labels", "A", "B", "A − B [95 %]", "p", "signed-\nrank p", "seeds")
        table = plain_table(*heads, title=title)
        for column in table.columns[1:]:
            column.no_wrap = True
        for line in self.table.to_dict("records"):
            table.add_row(
                escape(one_line(f"{line['test_data']} ({line['shift']})")), f"{line['label_fraction']:g} %",
                f"{line['a']:.3f}", f"{line['b']:.3f}",
                interval(Estimate(line["difference"], line["low"], line["high"], line["p"])),
                *("" if p != p else f"{p:.3g}" for p in (line["p"], line["signed_rank_p"])), str(line["seeds"]),
            )  # fmt: skip
        yield table
        table = plain_table("tested on", "labels", "image", "A", "B", "A − B", title="Images that differ most")
        shown = (
            self.images
            if len(self._found) == 1
            else self.images.groupby(["test_data", "shift", "label_fraction"]).head(3)
        )
        for line in shown.to_dict("records"):
            table.add_row(
                escape(one_line(line["test_data"])), f"{line['label_fraction']:g} %", escape(one_line(line["name"])),
                f"{line['a']:.3f}", f"{line['b']:.3f}", f"{line['difference']:+.3f}",
            )  # fmt: skip
        yield table
        yield from map(words, self.notes)

    def __repr__(self) -> str:
        line = self.table.iloc[0]
        said = f"{line.metric} {line.difference:+.3f} [{line.low:+.3f}, {line.high:+.3f}]"
        return f"<usbench comparison: {said} on {one_line(line.test_data)}; {len(self.table)} lines>"
