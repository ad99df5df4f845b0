"""`usbench verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from usbench.errors import RunFailed, UsbenchError

if TYPE_CHECKING:
    from usbench.report.verify import Report
    from usbench.runs.store import Store


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

    DIR is a store or a published result; CSV is a leaderboard, whose rows and trainings are checked in the store they
    come from, or in what was published beside it. Neither is ever written to: what --rerun trains lies in a temporary
    folder.
    """
    from usbench.share.publish import TABLES, is_published

    if place is None and rerun is not None and Path(rerun).exists():
        place, rerun = Path(rerun), "1"  # `verify --rerun DIR`: what follows the option is what it stands before
    if place is None:
        raise click.UsageError("Missing argument 'DIR|CSV'.")
    if is_published(place):
        place /= TABLES[0]
    _verify(_store_of(place, folder), place, "all" if every else rerun, beside=folder is None)


def _store_of(place: Path, folder: Path | None) -> Store:
    """The store to verify: the folder itself, the one named for a CSV, what was published beside it, or around it."""
    from usbench.runs.store import Store
    from usbench.share.publish import is_published, opened

    if not place.exists():
        raise UsbenchError(f"there is no file {place}: name a store, or a leaderboard's CSV.")
    if place.is_dir():
        return Store(place).check_schema()
    around = [place.resolve().parent, *place.resolve().parent.parents][:2]
    near = next((f for f in around if (f / "store.json").is_file()), Path("runs"))
    return opened(folder or (place.parent if is_published(place.parent) else near))


def _verify(store: Store, place: Path, rerun: str | None, *, beside: bool) -> None:
    from rich.console import Console

    from usbench.report.files import one_line
    from usbench.report.verify import Verifier
    from usbench.share.publish import is_published

    verifier = Verifier(store)
    with Console(stderr=True).status("reading") as status:
        for name in verifier.stages() if place.is_dir() else verifier.csv(place):
            status.update(f"checking {name}")
        if place.is_dir():
            verifier.tables()
        elif beside and is_published(place.parent):
            verifier.tables(place.parent)
    report = verifier.report
    said = _tell(report)
    if rerun is not None:
        try:
            _train_again(verifier, None if place.is_dir() else place, rerun)
        except UsbenchError as error:
            if not report.wrong:
                raise
            click.echo(one_line(f"not trained again: {error}"))
        _tell(report, said)
    if not report.stages and not report.rows and not report.wrong:
        raise UsbenchError(f"{place} holds nothing to verify: name a store with finished runs, or a leaderboard's CSV.")
    looked = f"{report.stages} stages and {report.rows} rows looked at"
    if report.wrong:
        things = "1 thing is" if len(report.wrong) == 1 else f"{len(report.wrong)} things are"
        raise RunFailed(f"{place} does not hold: {things} wrong, {looked}.")
    click.echo(f"{looked}: all that could be made again is as it was")


def _tell(report: Report, said: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Say what is wrong and what was skipped, but for so many of each that were said before; returns how many now."""
    from usbench.report.files import one_line

    for what, rows in report.wrong[said[0] :]:
        click.echo(one_line(f"wrong: {what}; feeds {'; '.join(map(str, rows)) or 'no row'}"))
    for reason, count in list(report.skipped.items())[said[1] :]:
        click.echo(one_line(f"skipped: {count} × {reason}"))
    return len(report.wrong), len(report.skipped)


def _train_again(verifier: Any, csv: Path | None, wanted: str) -> None:
    """Train rows again, say what came out, and put into the report what must not differ."""
    from rich.console import Console

    from usbench.api.progress import Display
    from usbench.hooks import registry
    from usbench.report.files import one_line
    from usbench.report.rerun import Rerun
    from usbench.report.written import keys_of

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
