"""`usbench bench`: how fast the harness is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from usbench.bench.setting import WHAT
from usbench.cli import complete
from usbench.errors import UsbenchError


@complete.offered(what=complete.word(*WHAT, join=","))
@click.command()
@click.option("--what", multiple=True, help=f"{', '.join(WHAT)}.  [all]")
@click.option("--size", help="Pixels a side, for example 128,224.")
@click.option("--backbone", multiple=True, help="Segmentation network; give it several times for several.")
@click.option("--loss", help="Pretraining loss.")
@click.option("--aug", help="Augmentation of the pretraining.")
@click.option("--data", help="Data set or pack.")
@click.option("--batch", type=int, help="Images a pretraining step.")
@click.option("--turns", type=int, help="How often each side has its turn.")
@click.option("--device", help="auto, cpu or cuda.")
@click.option("--precision", help="auto, bf16 or float32.")
@click.option("--threads", type=int, help="CPU threads; 0 takes the cores there are.")
@click.option("--store", help="A store of finished runs, for board.")
@click.option("--quick", is_flag=True, help="Tiny sizes: shows that it works, and measures nothing.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder to write.")
def bench(what: tuple[str, ...], output: Path, quick: bool, **given: Any) -> None:
    """How fast the harness is on this machine, beside a bare step, lightly, kornia and torchvision.

    Each comparison is one run on the same images, network and batch, its sides in turns. Writes bench.csv, bench.json
    and bench.png; growth makes 2.5 GB of temporary files. On a machine that does anything else the numbers mean little.
    """
    from rich.console import Console

    from usbench.bench.bench import check, run, shown
    from usbench.bench.machine import described, disturbed
    from usbench.bench.setting import make_setting

    if output.exists() and not output.is_dir():
        raise UsbenchError(f"-o {output} is a file: name a folder.")
    wanted = check(name for text in what for name in text.split(",") if name)
    given["size"] = _numbers(given["size"])
    folder = click.get_current_context().find_root().params.get("plugins_dir")
    setting = make_setting({**given, "folders": (str(folder),) if folder else ()}, quick=quick)
    console = Console()
    with console.status("…") as status:
        found = run(setting, wanted, lambda name: status.update(f"{name} …"))
    console.print(described(found.machine))
    if said := disturbed(found.machine):
        console.print(said, style="yellow")
    for table in shown(found.lines):
        console.print(table, highlight=False, markup=False)
    click.echo(", ".join(str(path) for path in found.save(output)))


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in (text or "").split(",") if part)
    except ValueError:
        raise UsbenchError(f"--size {text}: whole numbers by comma, for example 128,224.") from None
