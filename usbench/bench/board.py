"""`board`: how fast the stages of a store were done, and what the first of them foretold of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from usbench.bench.lines import Case, Line
from usbench.bench.setting import Setting
from usbench.bench.timing import Samples
from usbench.errors import UsbenchError
from usbench.runs.stage import KINDS
from usbench.runs.store import Store
from usbench.runs.timing import Known, kind_of

SAMPLE = 4  # one stage in so many, the first to finish, is what the others are planned from
Record = dict[str, Any]


def measure(setting: Setting) -> Iterator[Line]:
    """Stages an hour, and seconds planned against seconds taken."""
    if not setting.store:
        yield Line(Case("board"), "stages", note="not measured: name a store of finished runs with --store")
        return
    store = Store(Path(setting.store)).check_schema()
    records = [record for kind in KINDS for _, record in store.records(kind)]
    if len(records) < SAMPLE:
        raise UsbenchError(f"--store {setting.store} holds {len(records)} stages: at least {SAMPLE} are needed.")
    records.sort(key=lambda record: str(record["finished"]))
    ended = [datetime.fromisoformat(record["finished"]).timestamp() for record in records]
    began = min(end - record["seconds"] for end, record in zip(ended, records, strict=True))
    wall, busy = max(ended) - began, sum(record["seconds"] for record in records)
    case, hours = Case("board"), max(wall, 1.0) / 3600  # a finish is known to the second
    yield Line(
        case, "stages", Samples((len(records) / hours,)), "an hour",
        note=f"{len(records)} stages in {wall:.0f} s from the first to the last, {busy:.0f} s of work: "
        f"{busy / max(wall, 1.0):.1f} at once, pauses between runs counted as time",
    )  # fmt: skip
    planned, taken, unknown = estimated(records)
    if taken:
        ratio = Samples((planned / taken,))
        yield Line(
            case, "planned", Samples((planned,)), "s", ratio=ratio, ratio_of="planned / taken",
            note=f"what the first stages of each kind foretell of the others; {unknown} have none like them",
        )  # fmt: skip
        yield Line(case, "taken", Samples((taken,)), "s", note="by those others")


def estimated(records: list[Record]) -> tuple[float, float, int]:
    """Seconds planned and taken by all but the sample, and how many stages the sample says nothing of.

    Planned as `suite plan` plans, with the sample as the only records.
    """
    sample: list[Record] = []
    others: list[Record] = []
    for kind in KINDS:
        some = [record for record in records if record["kind"] == kind]
        count = -(-len(some) // SAMPLE)
        sample += some[:count]
        others += some[count:]
    known, planned, taken, unknown = Known.from_records(sample), 0.0, 0.0, 0
    for record in others:
        unit, _ = known.unit(kind_of(record["identity"], record["row"]))
        if unit is None:
            unknown += 1
            continue
        planned += unit * max(1, (record["identity"].get("schedule") or {}).get("steps", 1))
        taken += record["seconds"]
    return planned, taken, unknown
