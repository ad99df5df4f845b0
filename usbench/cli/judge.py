"""`usbench show`, `leaderboard`, `compare` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from usbench.errors import RunFailed, UsbenchError


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
    table = plain_table("training", "steps", "seconds", "loss", "inner score", "spread", "RankMe", title="Trainings")
    for stage_id, title in stages.items():
        if stage_id.startswith("evaluate"):
            continue
        facts = store.record(stage_id)["facts"]
        inner = next((name for name in facts if name.endswith("_inner")), "")
        numbers = [(facts.get(k), f) for k, f in ((inner, ".3f"), ("spread", ".2f"), ("rankme", ".1f"))]
        table.add_row(
            title, str(facts["steps"]), f"{facts['device_seconds']:.0f}", _last_loss(store.folder(stage_id)),
            *(format(value, f) if value is not None else "" for value, f in numbers),
        )  # fmt: skip
    console.print(table)


def _last_loss(folder: Path) -> str:
    """Where a training's loss ended; nothing where there is no curve."""
    path = folder / "curve.csv"
    if not path.is_file():
        return ""
    curve = path.read_text("utf-8").splitlines()
    return f"{float(dict(zip(curve[0].split(','), curve[-1].split(','), strict=True))['loss']):.3f}"


@click.command("leaderboard")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Write the table as CSV.")
@click.option("--md", "md_path", type=click.Path(path_type=Path), help="Write what a reader looks at as Markdown.")
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Write a page that needs no other file.")
@click.option("--no-images", is_flag=True, help="No pictures on the page: outlines only, where images may not travel.")
@click.option("--ranks", "ranks_path", type=click.Path(path_type=Path), help="Draw mean ranks over conditions (PNG).")
@click.option("--explain", is_flag=True, help="Say what the columns mean and how empty masks count.")
def board(
    folders: tuple[Path, ...], csv_path: Path | None, md_path: Path | None, html_path: Path | None, no_images: bool,
    ranks_path: Path | None, explain: bool,
) -> None:  # fmt: skip
    """All results of one or several stores as one table."""
    from rich.console import Console

    console = Console()
    if explain:
        _explain(console)
    elif not folders:
        raise UsbenchError("no store is named: give the --out folder of a run, for example 'usbench leaderboard runs'.")
    if no_images and html_path is None:
        raise UsbenchError("--no-images: of what? Name a page too, for example --html board.html.")
    if not folders:
        return
    from usbench.report.cells import cells
    from usbench.report.files import write_csv, write_markdown
    from usbench.report.index import Index
    from usbench.report.leaderboard import table_of
    from usbench.report.robustness import robustness_tables
    from usbench.report.table import footnotes, results_tables
    from usbench.runs.store import Store

    stores = [Store(folder).check_schema() for folder in dict.fromkeys(folders)]
    index = Index(stores)
    every = cells(index.results, index.memo)
    if not every:
        broken = f" ({len(index.broken)} half-written)" if index.broken else ""
        raise UsbenchError(
            f"no finished result in {', '.join(map(str, folders))}{broken}: run something with --out first."
        )
    for table in (*results_tables(every), *robustness_tables(every)):
        console.print(table)
    for note in footnotes(every, index.broken):
        console.print(note, highlight=False, markup=False)
    whole = table_of(every)
    index.save()
    for path, write in ((csv_path, write_csv), (md_path, write_markdown)):
        if path is not None:
            write(whole, path)
            console.print(f"{len(whole)} rows in {path}", highlight=False, soft_wrap=True, markup=False)
    if html_path is not None:
        from usbench.report.page import page_text, write_page

        write_page(html_path, page_text(every, stores, index.broken, images=not no_images))
        index.save()
        console.print(f"the page is {html_path}", highlight=False, soft_wrap=True, markup=False)
    if ranks_path is not None:
        _draw_ranks(every, ranks_path)


def _draw_ranks(every: Any, path: Path) -> None:
    from usbench.report import figures
    from usbench.report.ranks import LEAST_CONDITIONS, LEAST_METHODS, families

    if not (drawn := [family for family in families(every) if family.enough]):
        raise UsbenchError(
            f"--ranks {path}: mean ranks need {LEAST_METHODS} comparable methods that share {LEAST_CONDITIONS} "
            "conditions, and there are none: run more methods, label fractions or test sets."
        )
    figures.mean_ranks(drawn, path)


def _explain(console: Any) -> None:
    """What the columns mean, and what each metric is where a mask is empty."""
    from rich.markup import escape

    from usbench.evaluate.segmentation import EMPTY_MASK_CONVENTION
    from usbench.report.columns import COLUMNS
    from usbench.report.table import plain_table

    table = plain_table("column", "meaning", title="Columns of the CSV, for segmentation")
    for name, meaning in COLUMNS.items():
        table.add_row(name, escape(meaning))
    console.print(table)
    names = list(EMPTY_MASK_CONVENTION[0])
    table = plain_table(*names, title="Where a mask is empty (nan: undefined, left out of means)")
    for row in EMPTY_MASK_CONVENTION:
        table.add_row(*(value if isinstance(value, str) else f"{value:g}" for value in row.values()))
    console.print(table)


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--in", "folders", multiple=True, type=click.Path(path_type=Path), help="Stores that hold the rows.  [runs]"
)
def compare(first: str, second: str, folders: tuple[Path, ...]) -> None:
    """A less B on the same images: A and B are keys of a leaderboard, beginnings of keys, or folders of runs."""
    from rich.console import Console
    from rich.markup import escape

    from usbench.report import compare as pairs
    from usbench.report.cells import cells
    from usbench.report.files import one_line
    from usbench.report.index import Index
    from usbench.report.table import plain_table
    from usbench.runs.store import Store

    runs = [Path(text).resolve().parent for text in (first, second) if (Path(text) / "run.json").is_file()]
    places = folders or tuple(dict.fromkeys(runs)) or (Path("runs"),)
    stores = [Store(place).check_schema() for place in places]
    every = cells(Index(stores).results)
    found = pairs.compare(*(pairs.find(text, every, stores) for text in (first, second)))
    console = Console()
    table = plain_table(
        "tested on", "labels", "A", "B", "A − B [95 %]", "p", "signed-rank p", "seeds", title=_title(found[0])
    )
    for pair in found:
        row = pair.first.row
        means = [f"{pairs.mean_over(cell, pair.seeds).mean:.3f}" for cell in (pair.first, pair.second)]
        estimate = pair.estimate
        interval = f"{estimate.mean:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
        numbers = ["" if p != p else f"{p:.3g}" for p in (estimate.p, pair.signed_rank)]
        where = one_line(f"{row['test_data']} ({row['shift']})")
        table.add_row(
            escape(where), f"{row['label_fraction']:g} %", *means, interval, *numbers, str(len(pair.seeds))
        )  # fmt: skip
    console.print(table)
    table = plain_table("tested on", "labels", "image", "A", "B", "A − B", title="Images that differ most")
    for pair in found:
        for name, mine, theirs in pair.images if len(found) == 1 else pair.images[:3]:
            row = pair.first.row
            table.add_row(
                escape(one_line(row["test_data"])), f"{row['label_fraction']:g} %", escape(one_line(name)),
                f"{mine:.3f}", f"{theirs:.3f}", f"{mine - theirs:+.3f}",
            )  # fmt: skip
    console.print(table)
    for note in pairs.notes(found):
        console.print(one_line(note), highlight=False, markup=False)


def _title(pair: Any) -> str:
    from rich.markup import escape

    from usbench.report.files import one_line
    from usbench.report.ranks import method_of

    names = [f"{method_of(cell)} ({cell.row['setting'][:8]})" for cell in (pair.first, pair.second)]
    return escape(one_line(f"{pair.first.primary}: A is {names[0]}, B is {names[1]}"))


@click.command()
@click.argument("place", metavar="DIR|CSV", type=click.Path(path_type=Path))
@click.option("--in", "folder", type=click.Path(path_type=Path), help="The store that a CSV was made of.  [runs]")
def verify(place: Path, folder: Path | None) -> None:
    """Make everything again that can be made again: keys, digests, scores from masks, tables from scores.

    DIR is a store; CSV is a leaderboard, whose rows and trainings are checked in the store they come from.
    """
    from rich.console import Console

    from usbench.report.files import one_line
    from usbench.report.verify import Verifier
    from usbench.runs.store import Store

    around = [place.resolve().parent, *place.resolve().parent.parents][:2]
    near = next((f for f in around if (f / "store.json").is_file()), Path("runs"))
    verifier = Verifier(Store(place if place.is_dir() else folder or near).check_schema())
    with Console(stderr=True).status("reading") as status:
        for name in verifier.stages() if place.is_dir() else verifier.csv(place):
            status.update(f"checking {name}")
        if place.is_dir():
            verifier.tables()
    report = verifier.report
    for what, rows in report.wrong:
        click.echo(one_line(f"wrong: {what}; feeds {'; '.join(rows) or 'no row'}"))
    for reason, count in report.skipped.items():
        click.echo(one_line(f"skipped: {count} × {reason}"))
    looked = f"{report.stages} stages and {report.rows} rows looked at"
    if report.wrong:
        raise RunFailed(f"{place} does not hold: {len(report.wrong)} things are wrong, {looked}.")
    click.echo(f"{looked}: all that could be made again is as it was")
