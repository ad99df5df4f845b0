"""`usbench run`: one row and its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from usbench.errors import Interrupted, UsbenchError


def _numbers(text: str, what: str, cast: Any) -> list[Any]:
    try:
        return [cast(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsbenchError(f"{what} '{text}' are not numbers: write them by comma, as in 1,3,5.") from None


def _settings(values: tuple[str, ...]) -> dict[str, Any]:
    """--set pretrain.steps=500 → {"pretrain": {"steps": 500}}."""
    found: dict[str, Any] = {}
    for text in values:
        key, equals, value = text.partition("=")
        group, dot, name = key.partition(".")
        if not equals or not dot:
            raise UsbenchError(f"--set {text}: write for example --set pretrain.steps=500.")
        found.setdefault(group, {})[name] = value
    return found


def _given(**flags: Any) -> dict[str, Any]:
    """What the user typed, in the spec's own form."""
    given = {key: flags[key] for key in ("loss", "aug", "backbone", "init", "protocol", "size", "preset", "fold")}
    given |= {key: flags[key] for key in ("device", "precision", "threads")}
    given |= {key: list(flags[key]) or None for key in ("data", "ood", "pretrain_data", "split")}
    given |= {"leave_device": flags["leave_device"], "allow_leaks": flags["allow_leaks"] or None}
    if flags["shifts"] is not None:
        given["shifts"] = [name.strip() for name in flags["shifts"].split(",") if name.strip()]
    if flags["severities"] is not None:
        given["severities"] = _numbers(flags["severities"], "--severities", int)
    if flags["labels"] is not None:
        given["labels"] = _numbers(flags["labels"].replace("%", ""), "--labels", float)
    if flags["seeds"] is not None and flags["seed"] is not None:
        raise UsbenchError("--seeds (how many) and --seed (which one) exclude each other: give one.")
    if flags["seeds"] is not None:
        if flags["seeds"] < 1:
            raise UsbenchError(f"--seeds {flags['seeds']}: at least one seed is needed.")
        given["seeds"] = list(range(flags["seeds"]))
    if flags["seed"] is not None:
        given["seeds"] = _numbers(flags["seed"], "--seed", int)
    return {key: value for key, value in given.items() if value is not None}


@click.command()
@click.option("--loss", help="Pretraining loss: NAME or NAME:option=value,…")
@click.option("--aug", help="Augmentation of the pretraining; a+b composes.")
@click.option("--backbone", help="Segmentation network, for example unet-resnet18 or unet:convnext_tiny.")
@click.option("--init", help="Starting weights: random, imagenet or FILE.safetensors.")
@click.option("--data", multiple=True, help="Data set or pack (.h5) to train on; a+b trains on both.")
@click.option("--ood", multiple=True, help="Data set or pack to test on only; a+b, or give it several times.")
@click.option("--pretrain-data", multiple=True, help="What to pretrain on instead of --data; its labels are ignored.")
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
@click.option("--precision", help="auto, bf16 or float32.")
@click.option("--threads", type=int, help="CPU threads; 0 takes the cores there are.")
@click.option("--set", "settings", multiple=True, help="A schedule's setting, for example pretrain.steps=500.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="The store.")
@click.option("--config", type=click.Path(path_type=Path), help="Read settings from a TOML file; flags win.")
@click.option("--save-config", type=click.Path(path_type=Path), help="Write the resolved settings and go on.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first stage that fails.")
@click.option("--dry-run", is_flag=True, help="Show stages, keys and what is cached, and stop.")
def run(
    settings: tuple[str, ...],
    out: Path,
    config: Path | None,
    save_config: Path | None,
    fail_fast: bool,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Pretrain, fine-tune and test one method beside its baselines.

    Runs what is missing in the store and ends with a table, a CSV and pictures. Ctrl-C and SIGTERM save; the same
    command goes on. What fails does not stop what does not need it.
    """
    from rich.console import Console

    from usbench.cli.progress import Display
    from usbench.hooks import registry
    from usbench.runs.plan import make_plan
    from usbench.runs.store import Store
    from usbench.spec import config_text, read_config, resolve

    given = read_config(config) if config is not None else {}
    for key, value in (_given(**flags) | _settings(settings)).items():
        if isinstance(value, dict) and isinstance(given.get(key), dict):
            value = {**given[key], **value}
        given[key] = value
    if "loss" not in given:
        raise UsbenchError("no loss is named: give --loss, for example --loss simclr ('usbench plugins list').")
    if flags["severities"] is not None and not given.get("shifts"):
        raise UsbenchError("--severities: of what? Name corruptions too, for example --shifts all.")
    spec = resolve(given)
    console = Console()
    store = Store(out)
    store.check_place()
    with Display(console) as display:
        plan = make_plan(registry(), spec, display.making)
    if save_config is not None:
        try:
            save_config.write_text(config_text(spec), "utf-8")
        except OSError as error:
            raise UsbenchError(f"--save-config {save_config} cannot be written ({error.strerror}).") from None
    if dry_run:
        _show_plan(console, plan, store)
        return
    store.open()
    from usbench.runs.agenda import StagesFailed
    from usbench.runs.engines import run_plan

    failure: StagesFailed | None = None
    with Display(console) as display:
        try:
            # A traceback does not travel between processes, so --debug keeps all work in this one.
            debugging = click.get_current_context().find_root().params.get("debug")
            workers = 1 if debugging else plan.workers
            computed = run_plan(plan, store, registry(), display, workers=workers, fail_fast=fail_fast)
        except Interrupted as stop:
            raise Interrupted(f"stopped: {stop}; run the same command again to go on.") from None
        except StagesFailed as failed:
            failure = failed
    if failure is not None:
        _show_rest(console, plan, store, failure)
        raise failure
    _finish(console, plan, store, computed)


def _show_plan(console: Any, plan: Any, store: Any) -> None:
    from rich.markup import escape

    from usbench.report.table import plain_table

    table = plain_table("stage", "key", "", title=escape(f"{len(plan.stages)} stages in {store.root}"))
    for stage in plan.stages:
        table.add_row(escape(stage.title), stage.key, "cached" if store.has(stage.id) else "to do")
    console.print(table)


def _show_rest(console: Any, plan: Any, store: Any, failure: Any) -> None:
    """The results of what did not fail; they are in the store, and no folder of the run is written."""
    from usbench.report.cells import cells
    from usbench.report.results import results
    from usbench.report.table import footnotes, results_tables

    tested = [stage.id for stage in plan.stages if stage.kind == "evaluate" and store.has(stage.id)]
    if tested:
        every = cells(results(store, tested))
        for table in results_tables(every):
            console.print(table)
        for note in footnotes(every, plan.missing):
            console.print(note, highlight=False, markup=False)
    for line in failure.lines:
        click.echo(line)


def _finish(console: Any, plan: Any, store: Any, computed: int) -> None:
    from usbench.cli.judge import print_summary
    from usbench.report.summary import summarise

    summary = summarise(plan, store)
    print_summary(console, summary)
    console.print(
        f"{computed} of {len(plan.stages)} stages computed, the rest was there. Again: usbench show {summary.folder}",
        highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip
