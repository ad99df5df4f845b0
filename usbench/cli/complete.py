"""Shell completion: what the Tab key offers, and the script that a shell wants for it. Needs no torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from usbench.hooks import Registry, registry

Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _known(context: click.Context) -> Registry:
    """The registry, with the loose files of the command line."""
    known, folder = registry(), context.find_root().params.get("plugins_dir")
    if folder is not None and Path(folder).is_dir():
        known.load_folder(Path(folder))
    return known


def _fitting(choices: Iterable[tuple[str, str]], typed: str, join: str) -> list[CompletionItem]:
    """What begins as it was typed. After a join only the last part counts, and what stands before it stays."""
    before, found, last = typed.rpartition(join) if join else ("", "", typed)
    return [CompletionItem(before + found + name, help=said) for name, said in choices if name.startswith(last)]


def plugin(kind: str, join: str = "") -> Offer:
    """Names of a kind of plugin; with a join, several of them."""

    def offer(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        choices = [(entry.name, entry.summary) for entry in _known(context).entries(kind)]
        return _fitting(choices, typed, join)

    return offer


def any_plugin(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Names of all kinds."""
    return _fitting(((e.name, f"{e.kind}: {e.summary}") for e in _known(context).entries()), typed, "")


def data(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Sets that can be used at once: those that are made here, imported ones, and files."""
    from usbench.data.place import stored_packs

    made = {entry.name: entry.summary for entry in _known(context).entries("dataset") if entry.generated}
    imported = {path.stem: "imported" for path in stored_packs() if path.stem.partition("-")[0] not in made}
    return _fitting({**made, **imported}.items(), typed, "+") or [CompletionItem(typed, type="file")]


def release(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Sets that can be imported."""
    choices = [(e.name, e.summary) for e in _known(context).entries("dataset") if not e.generated]
    return _fitting(choices, typed, "")


def preset(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Names of presets."""
    from usbench.spec import presets

    return _fitting(((name, str(values.get("about", ""))) for name, values in presets().items()), typed, "")


def start(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Starting weights: words or a file."""
    words = (("random", "no weights"), ("imagenet", "those of timm or smp"))
    return _fitting(words, typed, "") or [CompletionItem(typed, type="file")]


def word(*words: str, join: str = "") -> Offer:
    """Some words."""

    def offer(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        return _fitting(((each, "") for each in words), typed, join)

    return offer


# By the name of an option or argument; of those that mean the same wherever they stand.
OFFERS: dict[str, Offer] = {
    "loss": plugin("loss"), "aug": plugin("augmentation", "+"), "backbone": plugin("backbone"),
    "protocol": plugin("protocol"), "init": start, "data": data, "data_name": data, "ood": data, "pretrain_data": data,
    "pack": data, "packs": data, "preset": preset, "device": word("auto", "cpu", "cuda"),
    "precision": word("auto", "bf16", "float32"), "track": word("tensorboard", "wandb", "mlflow", join=","),
    "engine": word("local", "dask"),
}  # fmt: skip


def offered(**special: Offer) -> Callable[[click.Command], click.Command]:
    """Let a command's options and arguments be completed by their names; some of them in a way of their own."""

    def put(command: click.Command) -> click.Command:
        for parameter in command.params:
            if offer := {**OFFERS, **special}.get(parameter.name or ""):
                setattr(parameter, "shell_complete", functools.partial(_ask, offer, parameter))  # noqa: B010
        return command

    return put


def _ask(offer: Offer, parameter: click.Parameter, context: click.Context, typed: str) -> list[CompletionItem]:
    return offer(context, parameter, typed)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete usbench's commands, options and names.

    \b
    bash:  echo 'eval "$(usbench completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(usbench completion zsh)"' >> ~/.zshrc
    fish:  usbench completion fish > ~/.config/fish/completions/usbench.fish
    """
    from usbench.cli import cli

    made = get_completion_class(shell)
    assert made is not None  # click has all three
    click.echo(made(cli, {}, "usbench", "_USBENCH_COMPLETE").source())
