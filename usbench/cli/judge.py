"""`usbench show`, `leaderboard`, `compare` and `verify`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from usbench.errors import RunFailed, UsbenchError

if TYPE_CHECKING:
    from usbench.runs.store import Store


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def show(run: Path) -> None:
    """Show a run again: RUN is its folder, as `usbench run` printed it."""
    from rich.console import Console
    from rich.markup import escape

    from usbench.api.result import title_of
    from usbench.api.stored import of_run
    from usbench.report.confusion import confusion_tables
    from usbench.report.files import one_line
    from usbench.report.nearest import runs_meant
    from usbench.report.summary import of_all_folds
    from usbench.report.table import plain_table

    if not (run / "run.json").is_file():
        near = runs_meant(str(run), [run, run.parent, Path("runs")], any_name=True)
        mend = f"did you mean {near}?" if near else "name one that 'usbench run' printed."
        raise UsbenchError(f"{run} is no run's folder (it has no run.json): {mend}")
    result = of_run(run)
    console = Console()
    if result.spec is not None:
        console.print(title_of(result.spec), highlight=False, markup=False)
    result.print(console)
    for table in confusion_tables(of_all_folds(result.cells, result.store)):
        console.print(table)
    table = plain_table("training", "steps", "seconds", "loss", "inner score", "spread", "RankMe", title="Trainings")
    for stage_id, title in result.titles.items():
        if stage_id.startswith("evaluate"):
            continue
        record = result.store.record(stage_id)
        facts = record.get("facts") if isinstance(record, dict) else None
        if not isinstance(facts, dict):
            raise UsbenchError(f"{result.store.folder(stage_id) / 'record.json'} lacks 'facts': delete its folder.")
        inner = next((name for name in facts if name.endswith("_inner")), "")
        numbers = [(facts.get(k), f) for k, f in ((inner, ".3f"), ("spread", ".2f"), ("rankme", ".1f"))]
        table.add_row(
            escape(one_line(title)), str(facts["steps"]), f"{facts['device_seconds']:.0f}",
            _last_loss(result.store.folder(stage_id)),
            *(format(value, f) if value is not None else "" for value, f in numbers),
        )  # fmt: skip
    console.print(table)


def _last_loss(folder: Path) -> str:
    """Where a training's loss ended; nothing where there is no curve."""
    path = folder / "curve.csv"
    if not path.is_file():
        return ""
    try:
        curve = path.read_text("utf-8").splitlines()
        return f"{float(dict(zip(curve[0].split(','), curve[-1].split(','), strict=True))['loss']):.3f}"
    except (ValueError, KeyError, IndexError) as error:
        raise UsbenchError(f"{path} is damaged ({error}): delete its folder and run again.") from None


@click.command("leaderboard")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Write the table as CSV.")
@click.option("--md", "md_path", type=click.Path(path_type=Path), help="Write what a reader looks at as Markdown.")
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Write a page that needs no other file.")
@click.option("--no-images", is_flag=True, help="No pictures on the page: outlines only, where images may not travel.")
@click.option("--curves", "curves_path", type=click.Path(path_type=Path), help="Draw scores over labels (PNG).")
@click.option("--ranks", "ranks_path", type=click.Path(path_type=Path), help="Draw mean ranks over conditions (PNG).")
@click.option("--outlines", "outlines_path", type=click.Path(path_type=Path), help="Draw masks, no images (PNG).")
@click.option("--explain", is_flag=True, help="Say what the columns mean and how empty masks count.")
def board(
    folders: tuple[Path, ...], csv_path: Path | None, md_path: Path | None, html_path: Path | None, no_images: bool,
    curves_path: Path | None, ranks_path: Path | None, outlines_path: Path | None, explain: bool,
) -> None:  # fmt: skip
    """All results of one or several stores, or published results, as one table."""
    from rich.console import Console

    console = Console()
    if explain:
        _explain(console)
    if no_images and html_path is None:
        raise UsbenchError("--no-images: of what? Name a page too, for example --html board.html.")
    if explain and not folders:
        return
    from usbench.api.stored import of_stores
    from usbench.report.files import check_place, write_csv, write_markdown

    places = {
        "--csv": csv_path, "--md": md_path, "--html": html_path, "--curves": curves_path, "--ranks": ranks_path,
        "--outlines": outlines_path,
    }  # fmt: skip
    for flag, path in places.items():
        if path is not None:
            check_place(flag, path)  # before the table is made, which may take a while
    result = of_stores(folders)
    result.print(console)
    whole = result.leaderboard
    for path, write in ((csv_path, write_csv), (md_path, write_markdown)):
        if path is not None:
            write(whole, path)
            console.print(f"{len(whole)} rows in {path}", highlight=False, soft_wrap=True, markup=False)
    stores = [result.store, *result.beside]
    if html_path is not None:
        from usbench.report.page import page_text, write_page

        write_page(html_path, page_text(result.cells, stores, result.missing, images=not no_images))
        console.print(f"the page is {html_path}", highlight=False, soft_wrap=True, markup=False)
    drawn = ((curves_path, "scores over labels"), (ranks_path, "mean ranks"), (outlines_path, "outlines"))
    if any(path is not None for path, _ in drawn):
        from usbench.report import board_figures

        draws = (board_figures.against_labels, board_figures.ranks, board_figures.outlines_of(stores))
        for (path, what), draw in zip(drawn, draws, strict=True):
            if path is not None:
                draw(result.cells, path)
                console.print(f"{what} in {path}", highlight=False, soft_wrap=True, markup=False)


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
    "--in",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Stores or published results that hold the rows.  [runs]",
)
def compare(first: str, second: str, folders: tuple[Path, ...]) -> None:
    """A less B on the same images: A and B are keys of a leaderboard, beginnings of keys, or folders of runs."""
    from usbench.api.stored import compare as compared

    compared(first, second, stores=folders).print()


@click.command()
@click.argument("place", metavar="DIR|CSV", type=click.Path(path_type=Path), required=False)
@click.option("--in", "folder", type=click.Path(path_type=Path), help="The store that a CSV was made of.  [runs]")
@click.option(
    "--rerun", is_flag=False, flag_value="1", metavar="[N|KEY,…|all]",
    help="Train again too: the N cheapest rows (1 if nothing is said), rows by beginnings of keys, or all.",
)  # fmt: skip
@click.option("--all", "every", is_flag=True, help="The same as --rerun all.")
def verify(place: Path | None, folder: Path | None, rerun: str | None, every: bool) -> None:
    """Make everything again that can be made again: keys, digests, scores from masks, tables from scores.

    DIR is a store; CSV is a leaderboard, whose rows and trainings are checked in the store they come from, or in what
    was published beside it. Neither is ever written to: what --rerun trains lies in a temporary folder.
    """
    if place is None and rerun is not None and Path(rerun).exists():
        place, rerun = Path(rerun), "1"  # `verify --rerun DIR`: what follows the option is what it stands before
    if place is None:
        raise click.UsageError("Missing argument 'DIR|CSV'.")
    with _store_of(place, folder) as store:
        _verify(store, place, "all" if every else rerun)


@contextlib.contextmanager
def _store_of(place: Path, folder: Path | None) -> Iterator[Store]:
    """The store to verify: the folder itself, the one named for a CSV, what was published beside it, or around it."""
    from usbench.runs.store import Store
    from usbench.share.publish import ARCHIVE, unpacked

    if not place.exists():
        raise UsbenchError(f"there is no file {place}: name a store, or a leaderboard's CSV.")
    beside = place.parent / ARCHIVE
    if folder is None and not place.is_dir() and beside.is_file():
        with unpacked(beside) as store:
            yield store
        return
    around = [place.resolve().parent, *place.resolve().parent.parents][:2]
    near = next((f for f in around if (f / "store.json").is_file()), Path("runs"))
    yield Store(place if place.is_dir() else folder or near).check_schema()


def _verify(store: Store, place: Path, rerun: str | None) -> None:
    from rich.console import Console

    from usbench.report.files import one_line
    from usbench.report.verify import Verifier

    verifier = Verifier(store)
    with Console(stderr=True).status("reading") as status:
        for name in verifier.stages() if place.is_dir() else verifier.csv(place):
            status.update(f"checking {name}")
        if place.is_dir():
            verifier.tables()
    report = verifier.report
    if rerun is not None:
        _train_again(verifier, None if place.is_dir() else place, rerun)
    for what, rows in report.wrong:
        click.echo(one_line(f"wrong: {what}; feeds {'; '.join(map(str, rows)) or 'no row'}"))
    for reason, count in report.skipped.items():
        click.echo(one_line(f"skipped: {count} × {reason}"))
    if not report.stages and not report.rows and not report.wrong:
        raise UsbenchError(f"{place} holds nothing to verify: name a store with finished runs, or a leaderboard's CSV.")
    looked = f"{report.stages} stages and {report.rows} rows looked at"
    if report.wrong:
        raise RunFailed(f"{place} does not hold: {len(report.wrong)} things are wrong, {looked}.")
    click.echo(f"{looked}: all that could be made again is as it was")


def _train_again(verifier: Any, csv: Path | None, wanted: str) -> None:
    """Train rows again, say what came out, and put into the report what must not differ."""
    from rich.console import Console

    from usbench.api.progress import Display
    from usbench.hooks import registry
    from usbench.report.files import one_line
    from usbench.report.rerun import Rerun
    from usbench.report.verify import keys_of

    again = Rerun(verifier.store, registry(), verifier.records)
    rows = again.choose(wanted, None if csv is None else keys_of(csv))
    stages, seconds = again.cost(rows)
    for row in rows:
        click.echo(one_line(f"to train again: {row.name}"))
    click.echo(f"{stages} stages, which took {seconds:.0f} s when they were made")
    with Display(Console()) as display:
        found = again.run(rows, display, display.making)
    for text in (*found.equal, *(f"note: {note}" for note in found.notes)):
        click.echo(one_line(text))
    verifier.report.wrong += found.wrong
    for reason, count in found.skipped.items():
        verifier.report.skipped[reason] = verifier.report.skipped.get(reason, 0) + count
