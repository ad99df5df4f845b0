"""The stages behind recorded results, planned again from the specs that a store keeps of its runs and suites."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from usbench.data.home import Progress
from usbench.errors import RunFailed
from usbench.hooks import Registry
from usbench.report import kept
from usbench.runs.plan import Common, make_plan
from usbench.runs.stage import Plan, Stage
from usbench.runs.store import Store
from usbench.spec import RunSpec

LINKS = {"evaluate": ("finetuned", "finetune"), "finetune": ("pretrained", "pretrain")}
COMPUTE = ("device", "precision", "threads")
SAME = ("loss", "label_fraction", "seed", "test_data", "shift")  # of a row, whatever it was made with
PLUGINS = ("backbone", "loss", "protocol", "aug")
IMAGES = {"images": "images", "labelled": "labelled images", "inner": "validation images"}


def chain(records: Mapping[str, Mapping[str, Any]], stage_id: str) -> list[str]:
    """A stage after all that it was made of, as their records say."""
    kind = stage_id.partition("-")[0]
    if kind in LINKS:
        link, source = LINKS[kind]
        if key := dict(records.get(stage_id, {}).get("identity") or {}).get(link):
            return [*chain(records, f"{source}-{key}"), stage_id]
    return [stage_id]


class Blueprints:
    """Plans the stages of recorded tests again, for the device, precision and threads that are recorded."""

    def __init__(self, store: Store, registry: Registry, records: Mapping[str, Mapping[str, Any]]) -> None:
        self.registry, self.records = registry, records
        self.planned = kept.planned(store.root)
        self._plans: dict[str, Plan] = {}

    def stages(self, test: str, progress: Progress) -> list[Stage]:
        """The trainings behind a test, and the test; says why where they cannot be what they were."""
        wanted = chain(self.records, test)
        if (lost := [name for name in wanted if name not in self.records]) or len(wanted) < 2:
            raise RunFailed(f"its stage {[*lost, 'finetune'][0]} is not in the store")
        row, computed = self.records[test]["row"], self.records[wanted[-2]]["identity"]
        fitting = kept.those_of(test, row["loss"], self.planned)
        if not fitting:
            raise RunFailed("no run.json or suite.json of the store says what it was made with: run the same again")
        reason = ""
        for each in fitting:
            planned = {stage.id: stage for stage in self._plan(each, computed, progress).stages}
            if all(name in planned for name in wanted):
                return [planned[name] for name in wanted]
            alike = [s for s in planned.values() if s.kind == "evaluate" and all(s.row[k] == row[k] for k in SAME)]
            reason = reason or self._why(wanted, alike, planned)
        raise RunFailed(reason)

    @property
    def plans(self) -> list[Plan]:
        """What was planned so far."""
        return list(self._plans.values())

    def _plan(self, planned: kept.Planned, computed: Mapping[str, Any], progress: Progress) -> Plan:
        compute = {name: computed[name] for name in COMPUTE}
        name = json.dumps([planned.spec, planned.common, compute], sort_keys=True)
        if name not in self._plans:
            try:
                spec = RunSpec(**{**planned.spec, **compute})
                of = planned.common
                common = Common(RunSpec(**of["spec"]), of["over"]) if of else None
            except (ValidationError, KeyError, TypeError) as error:
                raise RunFailed(f"the spec that the store keeps of it cannot be read ({error})") from None
            self._plans[name] = make_plan(self.registry, spec, progress, common=common)
        return self._plans[name]

    def _why(self, wanted: list[str], alike: list[Stage], planned: Mapping[str, Stage]) -> str:
        """The first stage that would be another one now, and by what."""
        if not alike:
            return "the run that made it would hold no such row now"
        now = alike[0]
        line = [now]
        while now.needs:
            now = planned[now.needs[0]]
            line.insert(0, now)
        for name, stage in zip(wanted, line, strict=False):
            if name != stage.id:
                return difference(self.records[name]["identity"], stage.identity, str(stage.row["train_data"]))
        return "the run that made it would hold no such row now"


def difference(recorded: Mapping[str, Any], planned: Mapping[str, Any], data: str) -> str:
    """In what a stage is not the one that was recorded, for a reader."""
    for name in PLUGINS:
        was, now = ([part] if isinstance(part, dict) else part for part in (recorded.get(name), planned.get(name)))
        for mine, other in zip(was or [], now or [], strict=False):
            if mine != other:
                what = "source" if mine.get("source") != other.get("source") else "options or revision"
                return f"{'augmentation' if name == 'aug' else name} '{mine.get('name')}' was changed since: its {what}"
    for name, called in IMAGES.items():
        if recorded.get(name) != planned.get(name):
            return f"its {called} are others now: a pack of '{data}' has another digest, or a split was changed"
    apart = [name for name in recorded if recorded[name] != planned.get(name)]
    apart = [name for name in apart if name not in ("arena", "setting", *(link for link, _ in LINKS.values()))] or apart
    if apart[:1] == ["revision"]:
        return "this usbench computes such a stage in another way than the one that made it"
    return f"'{apart[0]}' is another one now" if apart else "what it is made of is recorded in another way now"
