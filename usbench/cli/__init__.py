"""The command line: one module a group of commands, imported when it is used."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from typing import NoReturn

import click

from usbench import __version__
from usbench.errors import Interrupted, UsbenchError, of_system, unknown

# Help is shown without importing the commands, so it stays fast.
COMMANDS = {
    "run": ("usbench.cli.run:run", "Pretrain, fine-tune and test one method beside its baselines."),
    "suite": ("usbench.cli.suite:suite", "Many runs from one file: plan them, run them, see how far they are."),
    "show": ("usbench.cli.judge:show", "Show a run again: table, training, pictures."),
    "leaderboard": ("usbench.cli.judge:board", "All results of one or several stores as one table."),
    "watch": ("usbench.cli.watch:watch", "The leaderboard of a running store as a page that follows it."),
    "compare": ("usbench.cli.judge:compare", "Two rows on the same images: their paired difference."),
    "verify": ("usbench.cli.verify:verify", "Make everything again that can be made again, and say what differs."),
    "export": ("usbench.cli.share:export", "Take a run's network home: weights, config and a model card."),
    "publish": ("usbench.cli.share:publish", "A table, with the scores and records that it can be made again from."),
    "predict": ("usbench.cli.share:predict", "Masks and overlays for images of your own."),
    "store": ("usbench.cli.store:store", "Check a store, and clear away what nothing needs."),
    "data": ("usbench.cli.data:data", "Make and inspect packs of images."),
    "plugins": ("usbench.cli.plugins:plugins", "List, describe, check and begin plugins."),
    "preview": ("usbench.cli.preview:preview", "A contact sheet of what an augmentation does."),
    "bench": ("usbench.cli.bench:bench", "How fast the harness is on this machine, beside others."),
    "doctor": ("usbench.cli.doctor:doctor", "Check this machine and this installation."),
    "completion": ("usbench.cli.complete:completion", "The script that lets a shell complete commands and names."),
}


LONGEST = 200  # characters of a sentence of help


class Group(click.Group):
    """A group that offers the nearest command for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one is nearest."""
        names = self.list_commands(ctx)
        if ctx.resilient_parsing:  # a shell asks what fits
            return super().resolve_command(ctx, args)
        if args and args[0] not in names and not args[0].startswith("-"):
            raise unknown("command", args[0], names)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The first sentence of each command, whole."""
        with formatter.section("Commands"):
            every = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
            formatter.write_dl([(name, command.get_short_help_str(LONGEST)) for name, command in every if command])


class Lazy(Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="usbench")
@click.option("--plugins-dir", type=click.Path(path_type=Path), help="Load every .py file of a folder as a plugin.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(plugins_dir: Path | None, debug: bool) -> None:
    """Which self-supervised pretraining helps ultrasound segmentation, and by how much?

    The main job needs no download:  usbench run --loss rcl --aug freq
    """
    if plugins_dir is not None:
        from usbench.hooks import registry

        registry().load_folder(plugins_dir)


def main() -> NoReturn:
    """Run the command line; every failure a user can cause is one sentence."""
    debug = "--debug" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another, and work goes on
    try:
        code = cli.main(standalone_mode=False, prog_name="usbench")
    except UsbenchError as error:
        if debug and not isinstance(error, Interrupted):
            raise
        _say(str(error))
        code = error.exit_code
    except click.ClickException as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            error.show()
        else:
            context = getattr(error, "ctx", None)
            hint = f" ('{context.command_path} --help' shows how)" if context else ""
            _say(f"{error.format_message().rstrip('.')}{hint}.")
        code = 2
    except (click.Abort, KeyboardInterrupt):
        _say("stopped; run the same command again to go on.")
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except OSError as error:
        if debug:
            raise
        _say(str(of_system(error)))
        code = 2
    except Exception as error:
        if debug:
            raise
        _say(f"unexpected {type(error).__name__}: {error}. 'usbench --debug …' shows where; please report it.")
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _say(sentence: str) -> None:
    shown = "".join(c if c.isprintable() else " " for c in sentence)  # names come from strangers
    click.echo(f"usbench: {' '.join(shown.split())}", err=True)
