"""`usbench show` and `usbench leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from usbench.errors import UsbenchError


def print_summary(console: Any, summary: Any) -> None:
    """A run's table, its footnotes, and where the CSV and the pictures are."""
    from usbench.report.robustness import robustness_tables
    from usbench.report.table import footnotes, results_tables

    for table in (*results_tables(summary.cells), *robustness_tables(summary.cells)):
        console.print(table)
    for note in footnotes(summary.cells, summary.missing):
        console.print(note, highlight=False, markup=False)
    for name in ("leaderboard.csv", *summary.pictures):
        console.print(f"  {summary.folder / name}", highlight=False, soft_wrap=True, markup=False)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def show(run: Path) -> None:
    """Show a run again: RUN is its folder, as `usbench run` printed it."""
    from rich.console import Console

    from usbench.report.summary import read_summary
    from usbench.report.table import plain_table
    from usbench.runs.store import Store

    if not (run / "run.json").is_file():
        raise UsbenchError(f"{run} is no run's folder (it has no run.json): name one that 'usbench run' printed.")
    store = Store(run.resolve().parent).check_schema()
    try:
        summary = read_summary(run, store)
        spec, stages = summary.run["spec"], dict(summary.run["stages"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsbenchError(
            f"{run / 'run.json'} cannot be read ({type(error).__name__}: {error}): run the same command again."
        ) from error
    console = Console()
    console.print(
        f"{spec['loss']} under {spec['aug']}, {spec['backbone']} at {spec['size']} px from {spec['init']} weights, "
        f"seeds {', '.join(map(str, spec['seeds']))}", highlight=False, markup=False,
    )  # fmt: skip
    print_summary(console, summary)
    table = plain_table("training", "steps", "seconds", "loss", "inner Dice", "spread", "RankMe", title="Trainings")
    for stage_id, title in stages.items():
        if stage_id.startswith("evaluate"):
            continue
        facts = store.record(stage_id)["facts"]
        curve = (store.folder(stage_id) / "curve.csv").read_text("utf-8").splitlines()
        last = float(dict(zip(curve[0].split(","), curve[-1].split(","), strict=True))["loss"])
        numbers = [(facts.get(k), f) for k, f in (("dice_inner", ".3f"), ("spread", ".2f"), ("rankme", ".1f"))]
        table.add_row(
            title, str(facts["steps"]), f"{facts['device_seconds']:.0f}", f"{last:.3f}",
            *(format(value, f) if value is not None else "" for value, f in numbers),
        )  # fmt: skip
    console.print(table)


@click.command("leaderboard")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Write the table as CSV.")
def board(folders: tuple[Path, ...], csv_path: Path | None) -> None:
    """All results of one or several stores as one table."""
    from rich.console import Console

    from usbench.report.leaderboard import cells, leaderboard, results, write_csv
    from usbench.report.robustness import robustness_tables
    from usbench.report.table import footnotes, results_tables
    from usbench.runs.store import Store

    found = [result for folder in folders for result in results(Store(folder).check_schema())]
    if not found:
        raise UsbenchError(f"no finished result in {', '.join(map(str, folders))}: run something with --out first.")
    console = Console()
    every = cells(found)
    for table in (*results_tables(every), *robustness_tables(every)):
        console.print(table)
    for note in footnotes(every, []):
        console.print(note, highlight=False, markup=False)
    if csv_path is not None:
        written = leaderboard(found)
        write_csv(written, csv_path)
        console.print(f"{len(written)} rows in {csv_path}", highlight=False, soft_wrap=True, markup=False)
