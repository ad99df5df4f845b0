"""What a run, or a store, came to: tables as DataFrames, pictures, and how a terminal or a notebook shows it."""

from __future__ import annotations

import base64
import functools
import html
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.markup import escape

from usbench.report.cells import Cell, cells
from usbench.report.files import one_line
from usbench.report.leaderboard import board_of
from usbench.report.results import results
from usbench.report.shown import Part, Shown, parts_of, words
from usbench.report.summary import Summary, score_name
from usbench.report.table import plain_table
from usbench.runs.stage import Plan
from usbench.runs.store import Store
from usbench.spec import RunSpec

# What says whose a score is, before the columns that its protocol wrote.
WHOSE = ("loss", "aug", "backbone", "init", "train_data", "test_data", "shift", "label_fraction", "seed")


@dataclass(frozen=True)
class Picture(os.PathLike[str]):
    """A picture in a run's folder; a notebook shows it."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


class Pictures(dict[str, Picture]):
    """Pictures by name; a notebook shows them all."""

    def _repr_html_(self) -> str:
        return "".join(_figure(name, picture) for name, picture in self.items())


def _figure(name: str, picture: Picture) -> str:
    said, data = html.escape(one_line(name)), base64.b64encode(picture._repr_png_()).decode()
    return f'<figure><img alt="{said}" src="data:image/png;base64,{data}"><figcaption>{said}</figcaption></figure>'


@dataclass(eq=False, repr=False)
class Result(Shown, os.PathLike[str]):
    """The results of a run or of a store.

    `path` is its folder, `cells` its rows, `missing` names what its table lacks, `spec` is what was run (None for a
    store), and `computed` says how many stages were done now, not before.
    It stands for its folder wherever a path is asked for.
    """

    path: Path
    store: Store
    cells: list[Cell]
    missing: list[str] = field(default_factory=list)
    spec: RunSpec | None = None
    titles: dict[str, str] = field(default_factory=dict)  # of the stages of a run, by their names in the store
    files: list[str] = field(default_factory=list)
    computed: int = 0
    planned: bool = False  # only: nothing was run
    beside: Sequence[Store] = ()  # the other stores of a table

    def __fspath__(self) -> str:
        return str(self.path)

    @classmethod
    def of_plan(cls, plan: Plan, store: Store, folder: Path) -> Result:
        """A run that is only planned."""
        titles = {stage.id: stage.title for stage in plan.stages}
        return cls(folder, store, [], plan.missing, plan.spec, titles, planned=True)

    @classmethod
    def of_rest(cls, plan: Plan, store: Store, folder: Path) -> Result | None:
        """What is there of a run that failed in part; the run's folder is not written."""
        tested = [stage.id for stage in plan.stages if stage.kind == "evaluate" and store.has(stage.id)]
        titles = {stage.id: stage.title for stage in plan.stages}
        every = cells(results(store, tested)) if tested else []
        return cls(folder, store, every, plan.missing, plan.spec, titles) if every else None

    @classmethod
    def of_summary(cls, summary: Summary, store: Store, spec: RunSpec, computed: int = 0) -> Result:
        """A run that was done."""
        files, titles = ["leaderboard.csv", *summary.pictures], dict(summary.run["stages"])
        return cls(summary.folder, store, summary.cells, summary.missing, spec, titles, files, computed)

    @functools.cached_property
    def leaderboard(self) -> pd.DataFrame:
        """The table, a row a setting: the columns of the CSV, which `usbench leaderboard --explain` explains."""
        return board_of(self.cells)

    @functools.cached_property
    def scores(self) -> pd.DataFrame:
        """The scores of every image under every row and seed: whose they are, and what the protocol measured."""
        tables = []
        for cell in self.cells:
            for result in cell.results:
                scores = result.scores()
                whose = {name: result.row.get(name) for name in WHOSE}
                whose |= {"key": result.row["setting"], "stage": result.folder.name}
                left = pd.DataFrame(whose, index=scores.index)
                tables.append(pd.concat([left, scores.drop(columns=list(whose), errors="ignore")], axis=1))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*WHOSE, "key", "stage"])

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the rows, as `compare` takes them."""
        return tuple(cell.row["setting"] for cell in self.cells)

    @property
    def stages(self) -> pd.DataFrame:
        """A run's stages: title, key, whether it is done, and its folder."""
        rows = [
            (title, stage.partition("-")[2], self.store.has(stage), self.store.folder(stage))
            for stage, title in self.titles.items()
        ]
        return pd.DataFrame(rows, columns=["title", "key", "done", "folder"])

    @property
    def figures(self) -> Pictures:
        """The pictures of a run by name; of a store there are none."""
        found = {Path(name).stem: self.path / name for name in self.files if name.endswith(".png")}
        return Pictures({name: Picture(path) for name, path in found.items() if path.is_file()})

    def parts(self) -> Iterator[Part]:
        """Table, footnotes and files; of a run that is only planned, its stages."""
        if not self.planned:
            yield from parts_of(self.cells, self.missing, [self.path / name for name in self.files])
            return
        table = plain_table("stage", "key", "", title=escape(f"{len(self.titles)} stages in {self.store.root}"))
        for row in self.stages.itertuples():
            table.add_row(escape(str(row.title)), str(row.key), "cached" if row.done else "to do")
        yield table
        if not self.stages.done.all():
            yield words("What refuses its options says so when its stage begins, and not here.")

    @property
    def title(self) -> str:
        """What it is, in a line."""
        if self.spec is None:
            return one_line(f"{len(self.cells)} rows in {self.path}")
        done = f"{len(self.titles)} stages planned" if self.planned else f"{len(self.cells)} rows"
        return one_line(f"{title_of(self.spec)}: {done} in {self.path}")

    def __repr__(self) -> str:
        return f"<usbench result: {self.title}>"

    def _repr_html_(self) -> str:
        names = [score_name(self.cells)] if self.cells else []
        shown = [_figure(name, self.figures[name]) for name in names if name in self.figures]
        return "".join([f"<p><b>{html.escape(self.title)}</b></p>", super()._repr_html_(), *shown])


def title_of(spec: RunSpec) -> str:
    """What is run, in words."""
    seeds: Sequence[int] = spec.seeds
    return (
        f"{spec.loss} under {spec.aug}, {spec.backbone} at {spec.size} px from {spec.init} weights, "
        f"seeds {', '.join(map(str, seeds))}"
    )
