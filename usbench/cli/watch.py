"""`usbench watch`: the page of a running store, in a browser on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from usbench.errors import Interrupted


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR…", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=8642, show_default=True, help="0 takes any free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address; others are refused.")
@click.option("--no-images", is_flag=True, help="No pictures: outlines only.")
def watch(folders: tuple[Path, ...], port: int, host: str, no_images: bool) -> None:
    """Show the leaderboard of running stores as a page that follows them; only this machine can read it.

    A store that is not there yet is waited for: the page shows it as soon as a run makes it.
    """
    from usbench.report.watch import Server, Watched
    from usbench.runs.store import Store

    stores = [Store(folder) for folder in dict.fromkeys(folders)]
    for store in stores:
        if store.there or store.root.is_file():
            store.check_schema()
    with Server(host, port, Watched(stores, images=not no_images)) as server:
        click.echo(f"{', '.join(map(str, folders))} at {server.url} until Ctrl-C")
        if absent := [str(store.root) for store in stores if not store.there]:
            click.echo(f"no store yet at {', '.join(absent)}: the page waits for a run with --out there")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            raise Interrupted(f"stopped: {server.url} is no longer served.") from None
