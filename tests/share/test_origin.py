"""The settings beside an exported network are those that made it, or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from usbench.hooks import Registry
from usbench.report.suite import plans_of
from usbench.runs.plan import make_plan
from usbench.runs.records import write_json
from usbench.runs.store import Store
from usbench.runs.suite import SuitePlan, plan_suite
from usbench.share.origin import bare, spec_of
from usbench.suites import read_suite

RUNS = """
[[runs]]
over = { loss = ["none", "simclr"], aug = ["spatial", "none"], "pretrain.lr" = [1e-3, 3e-3], size = [32, 64] }

[[runs]]
loss = "byol"
select = { over = { "finetune.lr" = [1e-3, 3e-3] } }
"""


@pytest.fixture
def planned(installed: Registry, suite_file: Callable[[str], Path]) -> SuitePlan:
    return plan_suite(installed, read_suite(suite_file(RUNS)), lambda *_: None, skip_missing=False)


@pytest.fixture
def store(planned: SuitePlan, tmp_path: Path) -> Store:
    """A store that keeps the suite, and none of its stages."""
    stages = [stage.id for stage in planned.trainings]
    (tmp_path / "store" / "suite-x").mkdir(parents=True)
    write_json(
        tmp_path / "store" / "suite-x" / "suite.json", {"plans": plans_of(planned), "stages": stages, "tests": []}
    )
    return Store(tmp_path / "store")


def networks(store: Store, planned: SuitePlan) -> Iterator[Any]:
    """Every network of the suite, as it would be chosen to be exported."""
    for stage in planned.trainings:
        if stage.kind == "finetune":
            yield SimpleNamespace(store=store, key=stage.id.partition("-")[2], record={"row": stage.row})


def test_the_settings_of_a_network_out_of_a_suite_make_that_network(
    installed: Registry, planned: SuitePlan, store: Store
) -> None:
    every = list(networks(store, planned))
    packs = {field: getattr(planned.runs[0].run.spec, field) for field in ("data", "ood")}
    assert len(every) > 20
    for trained in every:
        spec = spec_of(trained)
        assert spec is not None
        assert spec.data == tuple(Path(pack).name for pack in packs["data"])
        stages = make_plan(installed, spec.model_copy(update=packs), lambda *_: None).stages
        assert f"finetune-{trained.key}" in {stage.id for stage in stages}, (trained.record, spec)


def test_a_baseline_is_made_again_by_its_own_run_where_there_is_one(planned: SuitePlan, store: Store) -> None:
    of_one = [trained for trained in networks(store, planned) if trained.record["row"]["loss"] == "none"]
    losses = {str(spec.loss) for trained in of_one if (spec := spec_of(trained)) is not None}
    assert losses == {"none", "byol"}  # of the choice, which has no run without a pretraining


def test_a_network_that_no_run_asked_for_has_no_settings(planned: SuitePlan, store: Store) -> None:
    (trained, *_) = networks(store, planned)
    (store.root / "suite-x" / "suite.json").write_text(json.dumps({"stages": [], "tests": []}))
    assert spec_of(trained) is None


def test_a_spec_that_cannot_be_read_is_passed_over(planned: SuitePlan, store: Store) -> None:
    path = store.root / "suite-x" / "suite.json"
    said = json.loads(path.read_text())
    broken = next(plan for plan in said["plans"] if plan["spec"]["loss"] == "simclr")
    broken["spec"]["size"] = "x"
    path.write_text(json.dumps(said))
    known = {stage for plan in said["plans"] if plan is not broken for stage in plan["stages"]}
    every = [(f"finetune-{trained.key}", spec_of(trained)) for trained in networks(store, planned)]
    assert all((spec is None) == (name not in known) for name, spec in every)
    assert any(spec is None for _, spec in every)


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("data", "/home/me/x.h5", "x.h5"), ("data", "../private/x.h5", "x.h5"), ("data", "~/x.h5", "x.h5"),
        ("ood", "private/x.v2.h5", "x.v2.h5"), ("pretrain_data", r"C:\me\x.h5", "x.h5"), ("data", "busi", "busi"),
        ("data", "phantom:l7,patients=3", "phantom:l7,patients=3"), ("split", "busi=/home/me/x.json", "busi=x.json"),
        ("split", "busi=../x.json", "busi=x.json"), ("split", "private/x.json", "x.json"),
        ("split", "/home/a=b/x.json", "x.json"), ("split", "x.json", "x.json"), ("init", "imagenet", "imagenet"),
        ("init", "runs/a/x.safetensors", "x.safetensors"), ("loss", "moco:queue=512", "moco:queue=512"),
        ("backbone", "unet:NAME/of.one,widths=8/16", "unet:NAME/of.one,widths=8/16"),
        ("about", "see https://example.org/a/b", "see https://example.org/a/b"), ("packs", "/home/me/x.h5", "x.h5"),
    ],
)  # fmt: skip
def test_a_setting_that_travels_names_no_place(field: str, text: str, expected: str) -> None:
    assert bare(field, text) == expected
