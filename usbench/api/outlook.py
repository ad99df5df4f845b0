"""What a run is about to do, in a line: how much, how long, and where things go."""

from __future__ import annotations

from pathlib import Path

from usbench.data.place import data_home
from usbench.errors import UsbenchError
from usbench.runs.agenda import missing
from usbench.runs.stage import Plan
from usbench.runs.store import Store
from usbench.runs.timing import Known, estimates
from usbench.spec import RunSpec, presets, resolve

# What a preset's own time was not measured for when it is another.
OF_TIME = ("data", "ood", "labels", "seeds", "backbone", "size", "protocol", "shifts", "pretrain", "finetune")


def outlook(plan: Plan, store: Store) -> str:
    """The line; nothing where nothing is left to do."""
    todo = missing(plan.stages, store)
    if not todo:
        return ""
    every = [row.seconds for row in estimates(todo, store, Known.of([store]))]
    known = [seconds for seconds in every if seconds is not None]
    long = clock(sum(known) / plan.workers) if len(known) == len(every) else _of_preset(plan.spec)
    there = f" (the other {len(plan.stages) - len(todo)} are there)" if len(todo) < len(plan.stages) else ""
    return (
        f"{len(todo)} stages to do{there}{f', about {long}' if long else ''}; results in {_short(store.root)}, "
        f"data in {_short(data_home())}. Ctrl-C saves."
    )


def _of_preset(spec: RunSpec) -> str:
    """How long a preset takes, where nothing that matters for it was changed."""
    try:
        usual = resolve({"loss": spec.loss, "preset": spec.preset})
    except UsbenchError:
        return ""
    same = all(getattr(usual, name) == getattr(spec, name) for name in OF_TIME)
    return str(presets()[spec.preset].get("about", "")) if same else ""


def clock(seconds: float) -> str:
    """A time that nobody needs exactly."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{round(seconds / 60)} min"


def _short(path: Path) -> str:
    """A folder as a person would write it."""
    whole, home = path.absolute(), Path.home()
    if whole.is_relative_to(home) and path.is_absolute():
        return str(Path("~") / whole.relative_to(home))
    return f"{path}/" if not path.is_absolute() else str(path)
