"""The commands that the documents show are commands of the harness, with options that it has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from usbench.cli import cli
from usbench.errors import UsbenchError

HOUSE = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "docs/cluster.md", "results/README.md")


def commands(page: str) -> list[str]:
    """The lines of code blocks that call usbench, without their comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", (HOUSE / page).read_text("utf-8"), re.S | re.M)
    lines = [line for block in blocks for line in block.splitlines()]
    found = [re.search(r"(?:^|&& |srun |\$\()(usbench [^)]*)", line.partition("  #")[0].strip()) for line in lines]
    return [match[1].partition(" && ")[0] for match in found if match]


def refused(line: str) -> str:
    """What the command line has against a command; nothing is run."""
    words = shlex.split(line)[1:]
    command: click.Command = cli
    context = click.Context(cli)
    try:
        _, words, _ = command.make_parser(context).parse_args(words)
        while isinstance(command, click.Group) and words:
            _, found, words = command.resolve_command(context, words)
            assert found is not None
            command, context = found, click.Context(found, parent=context)
            if isinstance(command, click.Group):
                _, words, _ = command.make_parser(context).parse_args(words)
            else:
                command.parse_args(context, words)
    except (click.UsageError, UsbenchError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_exists_with_its_options(page: str) -> None:
    assert commands(page)
    assert {line: said for line in commands(page) if (said := refused(line))} == {}


def test_a_command_that_does_not_exist_is_found() -> None:
    assert "No such option" in refused("usbench run --lossy rcl")
    assert "Missing parameter" in refused("usbench data import busi")
    assert "not a valid integer" in refused("usbench suite run s.toml --workers many")
    assert "unknown command" in refused("usbench suite plans x.toml")
    assert len(commands("README.md")) > 40
