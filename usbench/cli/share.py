"""`usbench export` and `usbench predict`: what users take home."""

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
        click.echo(f"chosen: {made.said}; --labels and --seed choose another")
    for note in made.notes:
        click.echo(one_line(f"note: {note}"), err=True)
    click.echo(one_line(f"{made.folder}: {made.title}"))
    click.echo(one_line(f"  {', '.join(made.files)}"))
