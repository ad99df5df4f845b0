"""`usbench show`, `leaderboard` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from usbench.errors import UsbenchError


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
    from usbench.report.files import check_place

    places = {
        "--csv": csv_path, "--md": md_path, "--html": html_path, "--curves": curves_path, "--ranks": ranks_path,
        "--outlines": outlines_path,
    }  # fmt: skip
    for flag, path in places.items():
        if path is not None:
            check_place(flag, path)  # before the table is made, which may take a while
            if flag in ("--curves", "--ranks", "--outlines"):
                from usbench.report.figures import form_of

                form_of(path)
    result = of_stores(folders)
    said: list[str] = []
    try:
        _write(result, places, said, images=not no_images)
    finally:  # last: whoever reads it may go away in the middle
        result.print(console)
        for line in said:
            console.print(line, highlight=False, soft_wrap=True, markup=False)


def _write(result: Any, places: dict[str, Path | None], said: list[str], *, images: bool) -> None:
    """Every file that was asked for; `said` is what there is then."""
    from usbench.report.files import write_csv, write_markdown

    whole, stores = result.leaderboard, [result.store, *result.beside]
    for flag, write in (("--csv", write_csv), ("--md", write_markdown)):
        if (path := places[flag]) is not None:
            write(whole, path)
            said.append(f"{len(whole)} rows in {path}")
    if (page := places["--html"]) is not None:
        from usbench.report.page import page_text, write_page

        write_page(page, page_text(result.cells, stores, result.missing, images=images))
        said.append(f"the page is {page}")
    drawn = {"--curves": "scores over labels", "--ranks": "mean ranks", "--outlines": "outlines"}
    if any(places[flag] is not None for flag in drawn):
        from usbench.report import board_figures

        draws = (board_figures.against_labels, board_figures.ranks, board_figures.outlines_of(stores))
        for (flag, what), draw in zip(drawn.items(), draws, strict=True):
            if (path := places[flag]) is not None:
                draw(result.cells, path)
                said.append(f"{what} in {path}")


def _explain(console: Any) -> None:
    """What the columns mean, and what each metric is where a mask is empty."""
    from rich.markup import escape

    from usbench.evaluate.segmentation import EMPTY_MASK_CONVENTION
    from usbench.report.columns import COLUMNS, LABELS, OF_WHAT, TRAININGS
    from usbench.report.table import plain_table

    of_labels = {f"{name}_mean, _low, _high": meaning for name, meaning in LABELS.items()}
    of_labels |= {f"{start}…": f"the same {meaning}" for start, meaning in OF_WHAT.items()}
    for title, meanings in (
        ("Columns of the CSV, for segmentation", COLUMNS),
        ("In place of the segmentation metrics, under protocols on labels", of_labels),
        ("Columns of trainings.csv, beside those that it shares with the CSV", TRAININGS),
    ):
        table = plain_table("column", "meaning", title=title)
        for name, meaning in meanings.items():
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
