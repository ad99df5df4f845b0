"""`usbench doctor`: what this machine can do and what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from pathlib import Path

import click

from usbench.errors import RunFailed, UsbenchError


@click.command()
def doctor() -> None:
    """Check this machine and this installation; exit code 1 where something must be mended."""
    from usbench.data.pack import Pack
    from usbench.data.place import data_home
    from usbench.hooks import registry
    from usbench.machine import cpu_flags, resolve_precision, resolve_threads
    from usbench.made import versions

    wrong: list[str] = []
    for name, found in versions().items():
        click.echo(f"{name:<28} {found}")
    click.echo(f"{'machine':<28} {platform.platform()}, {os.cpu_count()} cores, {resolve_threads(0)} used")
    fast = sorted({"amx_bf16", "avx512_bf16"} & cpu_flags())
    click.echo(
        f"{'bf16 in hardware':<28} {', '.join(fast) or 'not seen'}: auto precision {resolve_precision('auto', 'cpu')}"
    )
    try:
        import torch
        import torchvision  # noqa: F401 - importing it shows whether it fits torch

        cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
        click.echo(f"{'CUDA device':<28} {cuda}")
        import lightly.loss  # noqa: F401 - likewise
    except (ImportError, RuntimeError, OSError) as error:
        wrong.append(
            f"torch, torchvision and lightly do not fit together ({' '.join(str(error).split())}): "
            "reinstall with 'pip install --force-reinstall torch torchvision' from the plain package index"
        )
    for extra, missing in _extras().items():
        said = f"not installed: {', '.join(missing)} (pip install 'usbench[{extra}]')" if missing else "installed"
        click.echo(f"{f'extra {extra}':<28} {said}")
    home = data_home()
    present = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(present).free / 2**30
    packs = sorted(home.glob("*.h5"))
    click.echo(f"{'data home':<28} {home}, {free:.1f} GiB free, {len(packs)} packs")
    for path in packs:
        try:
            Pack(path)
        except UsbenchError as error:
            wrong.append(str(error).rstrip("."))
    if not os.access(present, os.W_OK):
        wrong.append(f"the data home {home} cannot be written: set USBENCH_DATA to another folder")
    if free < 1:
        wrong.append(f"the disk of {home} has {free:.2f} GiB free: make room")
    click.echo(f"{'disk here':<28} {shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free")
    known = registry()
    click.echo(f"{'plugins':<28} {len(list(known.entries()))} names, {len(known.broken)} broken plugins")
    wrong += [f"plugin '{name}' could not be loaded ({reason})" for name, reason in known.broken.items()]
    for sentence in wrong:
        click.echo(f"wrong: {sentence}")
    if wrong:
        raise RunFailed(f"{len(wrong)} thing{'s' if len(wrong) > 1 else ''} to mend, see above.")
    click.echo("all is well")


def _extras() -> dict[str, list[str]]:
    """What each optional extra lacks here, but for the developers' one."""
    found: dict[str, list[str]] = {}
    for text in importlib.metadata.requires("usbench") or []:
        asked = re.match(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)['\"]", text)
        if asked is None or asked[2] == "dev":
            continue
        missing = found.setdefault(asked[2], [])
        try:
            importlib.metadata.version(asked[1])
        except importlib.metadata.PackageNotFoundError:
            missing.append(asked[1])
    return found
