"""`usbench run`: one row and its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from usbench.cli import complete
from usbench.cli.suite import engine_options


@complete.offered()
@click.command()
@click.option("--loss", help="Pretraining loss: NAME or NAME:option=value,…")
@click.option("--aug", help="Augmentation of the pretraining; a+b composes.")
@click.option("--backbone", help="Segmentation network, for example unet-resnet18 or unet:convnext_tiny.")
@click.option("--init", help="Starting weights: random, imagenet or FILE.safetensors.")
@click.option("--data", multiple=True, help="Data set or pack (.h5) to train on; a+b trains on both.")
@click.option("--ood", multiple=True, help="Data set or pack to test on only; a+b, or give it several times.")
@click.option("--pretrain-data", multiple=True, help="What to pretrain on instead of --data; others without labels.")
@click.option("--pretrain-part", help="Of sets that are only pretrained on: whole, or train for their training images.")
@click.option("--labels", help="Label fractions in per cent.  [20,50,100]")
@click.option("--seeds", type=int, help="Number of seeds, from 0.")
@click.option("--seed", help="One seed, or several by comma.")
@click.option("--fold", type=int, help="Which test fold.")
@click.option("--split", multiple=True, help="[PACK=]FILE: names in JSON instead of a fold ('usbench data splits').")
@click.option("--leave-device", help="A scanner to leave out of training and to test on.")
@click.option("--allow-leaks", is_flag=True, help="Go on though training and test share images; it is recorded.")
@click.option("--shifts", help="Test corrupted images of --data too: 'all', or for example speckle,shadow.")
@click.option("--severities", help="How strongly, from 1 to 5.  [1,2,3,4,5]")
@click.option("--preset", help="quick, standard or paper.")
@click.option("--size", type=int, help="Pixels a side.")
@click.option("--protocol", help="How to fine-tune and score.")
@click.option("--device", help="auto, cpu or cuda.")
@click.option("--devices", type=int, help="How many share one pretraining: GPUs, or processes on the CPU.  [1]")
@click.option("--precision", help="auto, bf16 or float32.")
@click.option("--threads", type=int, help="CPU threads; 0 takes the cores there are.")
@click.option("--auto-batch", is_flag=True, help="Where memory runs out, do the same training in less; keys stay.")
@click.option("--set", multiple=True, help="A schedule's setting, for example pretrain.steps=500.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="The store.")
@click.option("--config", type=click.Path(path_type=Path), help="Read settings from a TOML file; flags win.")
@click.option("--save-config", type=click.Path(path_type=Path), help="Write the resolved settings and go on.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first stage that fails.")
@click.option("--track", default="", help="Trackers that look on: tensorboard, wandb, mlflow.")
@click.option("--workers", type=click.IntRange(1), help="Stages at once.")
@engine_options
@click.option("--dry-run", is_flag=True, help="Show stages, keys and what is cached, and stop.")
def run(**options: Any) -> None:
    """Pretrain, fine-tune and test one method beside its baselines.

    Runs what is missing in the store and ends with a table, a CSV and pictures. Ctrl-C and SIGTERM save; the same
    command goes on. What fails does not stop what does not need it.
    """
    import usbench
    from usbench.runs.agenda import StagesFailed

    # A traceback does not travel between processes, so --debug keeps all work in this one.
    debugging = click.get_current_context().find_root().params.get("debug")
    try:
        result = usbench.run(**{**options, "workers": 1 if debugging else options["workers"]})
    except StagesFailed as failed:
        if failed.result is not None:
            failed.result.print()
        for line in failed.lines:
            click.echo(line)
        raise
    result.print()
    if not result.planned:
        rest = ", the rest was there" if result.computed < len(result.titles) else ""
        click.echo(
            f"{result.computed} of {len(result.titles)} stages computed{rest}. Again: usbench show {result.path}"
        )
