"""Builds what a suite's trainings are made of, once each: what refuses its options does so before hours of others."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable

from usbench.errors import UsbenchError
from usbench.hooks import Registry
from usbench.runs.agenda import missing
from usbench.runs.stage import Stage
from usbench.runs.store import Store


def rehearse(stages: Iterable[Stage], store: Store, registry: Registry) -> None:
    """Build each distinct network, loss, augmentation and protocol of the missing trainings, on the CPU and untrained;
    a UsbenchError says what one of them refuses, and in which stage. One that breaks otherwise is let pass: its stage
    will fail and say so, and what does not need it goes on."""
    trainings = [stage for stage in missing(stages, store) if stage.kind != "evaluate"]
    distinct: dict[str, Stage] = {}
    for stage in trainings:
        own = {name: stage.identity.get(name) for name in ("size", "classes")}
        batch = stage.identity.get("schedule", {}).get("batch")
        parts = {"plugins": stage.places["plugins"], "kind": stage.kind, "batch": batch, **own}
        distinct.setdefault(json.dumps(parts, sort_keys=True, default=str), stage)
    if not distinct:
        return
    from usbench.runs.kinds import Kinds
    from usbench.runs.stages import globals_kept

    kinds = Kinds(store, registry)
    for stage in distinct.values():
        refused: UsbenchError | None = None
        with globals_kept(), contextlib.suppress(Exception, SystemExit):  # a stranger's plugin may raise anything
            try:
                kinds.build(stage)
            except UsbenchError as error:
                refused = error
        if refused is not None:
            raise UsbenchError(f"{stage.title}: {refused}") from refused
