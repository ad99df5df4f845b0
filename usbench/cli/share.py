"""`usbench export`, `predict` and `publish`: what users take home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

STORES = click.option(
    "--in", "stores", multiple=True, type=click.Path(path_type=Path), help="Stores that hold the run.  [runs]"
)
SEED = click.option("--seed", type=int, help="Which seed, where there are several.  [the lowest]")
LABELS = click.option("--labels", type=float, help="Which label fraction, in per cent.  [the largest]")


@click.command()
@click.argument("run")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@STORES
@SEED
@LABELS
@click.option("--onnx", is_flag=True, help="Write the network as an ONNX graph too (extra 'onnx').")
@click.option("--force", is_flag=True, help="Replace an export that is there.")
def export(run: str, output: Path, **given: Any) -> None:
    """Take a network home: weights that timm or segmentation-models-pytorch loads, config, records, a model card.

    RUN is a run's folder, name or key, a row's key, or a stage (finetune-…).
    """
    from usbench.report.files import one_line
    from usbench.share.export import export as write

    made = write(run, output, **given)
    if made.said:
        click.echo(f"chosen: {made.said}{_others(given)}")
    for note in made.notes:
        click.echo(one_line(f"note: {note}"), err=True)
    click.echo(one_line(f"{made.folder}: {made.title}"))
    click.echo(one_line(f"  {', '.join(made.files)}"))


@click.command()
@click.argument("run", metavar="RUN|FILE")
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@STORES
@SEED
@LABELS
@click.option("--threshold", type=float, help="Probability from which a pixel is a lesion.  [0.5]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--batch", type=int, default=16, show_default=True, help="Images at a time.")
@click.option("--overlays/--no-overlays", default=True, help="Pictures with the outline too.  [yes]")
@click.option("--force", is_flag=True, help="Write into a folder that is not empty.")
def predict(run: str, images: tuple[str, ...], output: Path, **given: Any) -> None:
    """Masks at their own size, overlays and a table for images of your own: for research, not for diagnosis.

    RUN|FILE is an exported folder, its unet.safetensors, or a run as for `usbench export`. IMAGES are files, folders
    with all below them, or quoted patterns.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from usbench.report.files import one_line
    from usbench.share.predict import predict as make

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True), console=console,
        transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("images", total=None)
        made = make(
            run, images, output, progress=lambda done, total: bar.update(task, completed=done, total=total), **given
        )
    if made.said:
        click.echo(f"chosen: {made.said}{_others(given)}")
    for name, reason in made.skipped.items():
        click.echo(one_line(f"skipped: {name}: {reason}"), err=True)
    left = f"; {len(made.skipped)} could not be used" if made.skipped else ""
    click.echo(one_line(f"{made.done} images in {made.folder}{left}; {made.table}"))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder to write.")
def publish(folder: Path, output: Path) -> None:
    """Write the table of a run or suite, and the scores and records that it can be made again from: no weights, no
    masks, no images.

    FOLDER is the run's or suite's, as it was printed. `usbench verify OUTPUT/leaderboard.csv` needs nothing else.
    """
    from usbench.report.files import one_line
    from usbench.share.publish import publish as write

    for path in write(folder, output):
        click.echo(one_line(f"{path}  {path.stat().st_size / 2**20:.2f} MiB"))


def _others(given: dict[str, Any]) -> str:
    """How to choose another network, where there is a choice left."""
    left = [f"--{name}" for name in ("labels", "seed") if given[name] is None]
    return f"; {' and '.join(left)} choose{'s' if len(left) == 1 else ''} another" if left else ""
