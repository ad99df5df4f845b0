"""A suite: shared work once, choices on inner validation alone, and one leaderboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from usbench.hooks import Registry
from usbench.report import suite as suites
from usbench.report.upkeep import Upkeep
from usbench.runs.agenda import missing
from usbench.runs.records import RECORD, WEIGHTS, write_json
from usbench.runs.stage import Plan, Stage, unique
from usbench.runs.store import Store
from usbench.runs.suite import do_suite, plan_suite
from usbench.suites import read_suite

File = Callable[[str], Path]
TWO = "[[runs]]\nover = { loss = ['simclr', 'byol'] }\n"
CHOICE = "[[runs]]\nloss = 'simclr'\nselect = { over = { 'finetune.lr' = [1e-3, 1e-2, 1e-1] }, on = 'inner' }\n"


def test_runs_share_their_baselines(installed: Registry, suite_file: File) -> None:
    plan = plan_suite(installed, read_suite(suite_file(TWO)), lambda *_: None, skip_missing=False)
    alone = [len(plans[0][1].stages) for plans in (run.plans for run in plan.runs)]
    assert plan.asked == sum(alone) > len(unique(s for run in plan.runs for s in run.plans[0][1].stages))
    assert len([s for s in plan.trainings if s.kind == "pretrain"]) == 2


class Records(Store):
    """A store that knows nothing but inner scores."""

    def __init__(self, scores: dict[str, float], metric: str = "dice") -> None:
        self.scores, self.metric = scores, metric

    def has(self, stage_id: str) -> bool:
        return stage_id in self.scores

    def record(self, stage_id: str) -> dict[str, Any]:
        return {"facts": {"steps": 1, f"{self.metric}_inner": self.scores[stage_id], f"{self.metric}_inner_last": 9.0}}


def test_the_trial_with_the_best_mean_inner_score_is_tested_for_each_row_and_no_other(
    installed: Registry, suite_file: File
) -> None:
    suite = read_suite(suite_file(CHOICE.replace("loss = ", "seeds = [0, 1]\nloss = ")))
    (run,) = plan_suite(installed, suite, lambda *_: None, skip_missing=False).runs
    wanted = {("simclr", 50.0): 2, ("simclr", 100.0): 1, ("none", 50.0): 0, ("none", 100.0): 2}
    scores: dict[str, float] = {}
    for place, (_, plan) in enumerate(run.plans):
        for stage in plan.stages:
            if stage.kind == "finetune":
                best = wanted.get((stage.row["loss"], stage.row["label_fraction"]), 0) == place
                # One seed of another trial shines; its mean does not.
                scores[stage.id] = (0.6 if best else 0.5) + (0.05 if not best and stage.row["seed"] == 0 else 0)
    tests = run.chosen(Records(scores))
    for stage in tests:
        place = wanted.get((stage.row["loss"], stage.row["label_fraction"]), 0)
        assert stage.row["chosen"] == f"finetune.lr={[0.001, 0.01, 0.1][place]} (of 3)"
    assert len(tests) == len([s for s in run.plans[0][1].stages if s.kind == "evaluate"])
    arenas = {(s.row["label_fraction"], s.row["test_data"]): set() for s in tests}
    for s in tests:
        arenas[s.row["label_fraction"], s.row["test_data"]].add(s.row["arena"])
    assert all(len(of) == 1 for of in arenas.values())  # whatever was chosen, rows are compared


def test_a_setting_is_chosen_by_the_metric_of_its_protocol(installed: Registry, suite_file: File) -> None:
    (run,) = plan_suite(installed, read_suite(suite_file(CHOICE)), lambda *_: None, skip_missing=False).runs
    scores = {s.id: 0.6 if place == 1 else 0.5 for place, (_, p) in enumerate(run.plans) for s in p.stages}
    tests = run.chosen(Records(scores, "balanced_accuracy"))
    assert {s.row["chosen"] for s in tests} == {"finetune.lr=0.01 (of 3)"}


def test_without_inner_validation_nothing_is_chosen(installed: Registry, suite_file: File) -> None:
    (run,) = plan_suite(installed, read_suite(suite_file(CHOICE)), lambda *_: None, skip_missing=False).runs
    scores = {s.id: float("nan") if place == 1 else 0.5 for place, (_, p) in enumerate(run.plans) for s in p.stages}
    assert {s.row["chosen"] for s in run.chosen(Records(scores))} == {"finetune.lr=0.001 (of 3)"}


def test_a_row_of_which_a_trial_could_not_be_trained_is_left_out(installed: Registry, suite_file: File) -> None:
    (run,) = plan_suite(installed, read_suite(suite_file(CHOICE)), lambda *_: None, skip_missing=False).runs
    scores = {s.id: 0.5 for _, plan in run.plans for s in plan.stages}
    lost = next(s for s in run.plans[1][1].stages if s.kind == "finetune" and s.row["loss"] == "simclr")
    del scores[lost.id]
    row = (lost.row["loss"], lost.row["label_fraction"])
    chosen, unchosen = run.chosen(Records(scores)), run.unchosen(Records(scores))
    assert {(s.row["loss"], s.row["label_fraction"]) for s in unchosen} == {row}
    assert row not in {(s.row["loss"], s.row["label_fraction"]) for s in chosen} and chosen


def test_a_suite_that_is_stopped_while_its_table_is_made_keeps_its_stages(
    installed: Registry, suite_file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_suite(installed, read_suite(suite_file(TWO)), lambda *_: None, skip_missing=False)
    store = Store(tmp_path / "o").open()

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(suites, "results", stopped)
    with pytest.raises(KeyboardInterrupt):
        suites.write_suite(plan, plan.tests(store), store)
    assert Upkeep(store).needs().stages >= {stage.id for stage in plan.trainings}


BROKEN = """
from usbench import Loss, hookimpl

class Broken(Loss):
    def objective(self, out, batch):
        raise KeyError("of course")

@hookimpl
def usbench_losses(register):
    register("broken", Broken, summary="raises")
"""


def test_a_run_that_fails_does_not_stop_the_others_and_status_says_why(
    usbench: Callable[..., Any], suite_file: File, tmp_path: Path
) -> None:
    (tmp_path / "plugins").mkdir()
    plugin = tmp_path / "plugins" / "broken.py"
    plugin.write_text(BROKEN)
    path, out = suite_file("[[runs]]\nlabels = [100]\nover = { loss = ['broken', 'simclr'] }\n"), tmp_path / "o"
    words = ("--plugins-dir", plugin.parent, "suite")
    said = usbench(*words, "run", path, "--out", out)
    assert said.code == 1 and said.one_sentence().endswith(
        "KeyError: 'of course' (broken.py, line 6); 'usbench --debug' shows more; 3 stages that need it were left out."
    )
    assert "stages computed; the table has what could be tested." in said.out
    assert said.out.splitlines()[-1].startswith("failed: pretrain broken, seed 0 failed: Key")
    table = pd.read_csv(out / "suite-tiny" / "leaderboard.csv")
    assert set(table.loss) == {"simclr", "none", "none-long"}
    status = usbench(*words, "status", path, "--out", out)
    assert "Failed: pretrain broken, seed 0 failed: KeyError" in status.out
    plugin.write_text(BROKEN.replace('raise KeyError("of course")', "return out.features[0].square().mean()"))
    assert usbench(*words, "run", path, "--out", out).code == 0
    assert "Failed" not in usbench(*words, "status", path, "--out", out).out
    assert set(pd.read_csv(out / "suite-tiny" / "leaderboard.csv").loss) == {"broken", "simclr", "none", "none-long"}


def test_a_bad_file_in_the_first_run_does_not_stop_the_others(
    usbench: Callable[..., Any], suite_file: File, tmp_path: Path
) -> None:
    (bad := tmp_path / "bad.safetensors").write_text("weights")
    text = f"[[runs]]\nlabels = [100]\nloss = 'simclr'\nover = {{ init = ['{bad}', 'random'] }}\n"
    said = usbench("suite", "run", suite_file(text), "--out", tmp_path / "o")
    assert said.code == 1 and "3 stages failed" in said.one_sentence()
    failed = said.out.splitlines()[-3:]
    assert all(line.startswith("failed: ") and "bad.safetensors is not a whole" in line for line in failed)
    assert said.out.count("bad.safetensors is not a whole") == 3 + 3, said.out  # when it happens, and at the end
    table = pd.read_csv(tmp_path / "o" / "suite-tiny" / "leaderboard.csv")
    assert set(table.init) == {"random"} and set(table.loss) == {"simclr", "none", "none-long"}


def test_a_suite_of_which_nothing_can_be_done_is_bad_input(
    usbench: Callable[..., Any], suite_file: File, tmp_path: Path
) -> None:
    (bad := tmp_path / "bad.safetensors").write_text("weights")
    path = suite_file(f"[[runs]]\nlabels = [100]\nloss = 'simclr'\ninit = '{bad}'\n")
    said = usbench("suite", "run", path, "--out", tmp_path / "o")
    assert said.code == 2 and "bad.safetensors is not a whole safetensors file" in said.one_sentence()


def test_what_refuses_its_options_does_so_before_the_first_stage(
    usbench: Callable[..., Any], suite_file: File, tmp_path: Path
) -> None:
    path, out = suite_file("[[runs]]\nlabels = [100]\nover = { loss = ['simclr', 'rcl:form=bec'] }\n"), tmp_path / "o"
    said = usbench("suite", "run", path, "--out", out)
    assert said.code == 2 and "rcl:form=bec, seed 0: loss 'rcl' refuses form='bec'" in said.err.splitlines()[-1]
    assert not out.exists()
    assert "What refuses its options says so before" in usbench("suite", "plan", path, "--out", out).out


def test_runs_that_would_be_called_the_same_say_what_tells_them_apart(
    usbench: Callable[..., Any], suite_file: File, tmp_path: Path
) -> None:
    path = suite_file("[[runs]]\nloss = 'simclr'\nover = { fold = [0, 1], 'pretrain.steps' = [2, 3] }\n")
    said = " ".join(usbench("suite", "plan", path, "--out", tmp_path / "o").out.split())
    assert all(f"fold {fold} · pretrain.steps {steps}" in said for fold in (0, 1) for steps in (2, 3))


def test_a_suite_ends_with_one_leaderboard_and_runs_once(
    usbench: Callable[..., Any], suite_file: File, tmp_path: Path
) -> None:
    runs = TWO.replace("[[runs]]", "[[runs]]\nlabels = [100]") + CHOICE.replace("[[runs]]", "[[runs]]\nlabels = [100]")
    path, out = suite_file(runs), tmp_path / "o"
    planned = usbench("suite", "plan", path, "--out", out)
    assert (
        planned.code == 0
        and "3 trials" in planned.out
        and "Time left: unknown; suite plan --time measures" in planned.out
    )
    said = usbench("suite", "run", path, "--out", out)
    assert said.code == 0, said.err
    table = pd.read_csv(out / "suite-tiny" / "leaderboard.csv")
    assert set(table.suite) == {"tiny"} and {"simclr", "byol", "none", "none-long"} == set(table.loss)
    assert table.chosen.fillna("").str.contains("(of 3)", regex=False).sum() == 6  # 3 losses on 2 sets
    before = (out / "suite-tiny" / "leaderboard.csv").read_bytes()
    again = usbench("suite", "run", path, "--out", out)
    assert "0 stages computed" in again.out
    assert (out / "suite-tiny" / "leaderboard.csv").read_bytes() == before
    status = usbench("suite", "status", path, "--out", out)
    assert status.code == 0 and "Time left" not in status.out


def test_a_suite_that_replaces_the_table_of_another_of_its_name_says_so(
    usbench: Callable[..., Any], suite_file: File, tmp_path: Path
) -> None:
    run, out, words = "[[runs]]\nloss = 'none'\nlabels = [100]\n", tmp_path / "o", "which this one replaces"
    path = suite_file(run)
    assert all(words not in usbench("suite", "run", path, "--out", out).out for _ in range(2))
    more = suite_file(run + "seeds = [0, 1]\n")
    assert words not in usbench("suite", "run", more, "--out", out).out  # it has all that the first one had
    said = " ".join(usbench("suite", "run", suite_file(run), "--out", out).out.split())
    assert "suite-tiny holds the table of another suite of this name, which this one replaces; name it" in said


def test_sets_that_are_not_imported_are_named_and_left_out_only_if_that_is_allowed(
    usbench: Callable[..., Any], suite_file: File, tmp_path: Path
) -> None:
    path = suite_file(
        TWO.replace("over = {", "labels = [100]\nood = ['udiat', 'stu']\nover = {") + "[[runs]]\nloss = 'none'\n"
    )
    refused = usbench("suite", "run", path, "--out", tmp_path / "o")
    assert refused.code == 2
    assert "2 of 3 runs" in refused.one_sentence() and "udiat" in refused.err and "--skip-missing" in refused.err
    assert not (tmp_path / "o").exists()
    said = usbench("suite", "plan", path, "--out", tmp_path / "o")
    assert "Left out: the data set 'udiat' is not imported yet" in said.out


def test_many_runs_want_a_yes(
    usbench: Callable[..., Any], suite_file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("usbench.api.suites.MANY", 1)
    refused = usbench("suite", "run", suite_file(TWO), "--out", tmp_path / "o")
    assert refused.code == 2 and "2 runs, more than 1: start them with --yes" in refused.one_sentence()


def test_what_was_chosen_of_a_published_store_is_trained_again_where_a_test_is_added(
    installed: Registry, suite_file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_suite(installed, read_suite(suite_file(CHOICE)), lambda *_: None, skip_missing=False)
    store = Store(tmp_path / "runs").open()
    write_json(store.root / "store.json", {"schema": 1, "left_out": [".safetensors"]})
    for stage in plan.trainings:
        store.folder(stage.id).mkdir()
        write_json(store.folder(stage.id) / RECORD, {"facts": {"dice_inner": 0.5}, "files": {WEIGHTS: ""}})
    passes: list[list[Stage]] = []

    def do(some: Plan, *given: Any, **options: Any) -> int:
        passes.append(missing(some.stages, store))
        return 0

    monkeypatch.setattr("usbench.runs.suite.run_plan", do)
    tests, _ = do_suite(plan, store, installed, SimpleNamespace())
    assert not passes[0]
    assert {stage.id for stage in tests} < {stage.id for stage in passes[1]}
    assert {need for stage in tests for need in stage.needs} <= {stage.id for stage in passes[1]}


def test_a_choice_stands_where_a_training_made_again_for_its_weights_scores_otherwise(
    installed: Registry, suite_file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_suite(installed, read_suite(suite_file(CHOICE)), lambda *_: None, skip_missing=False)
    store = Store(tmp_path / "runs").open()
    (run,) = plan.runs
    best = {stage.id for stage in run.plans[1][1].stages}

    def finish(stages: list[Stage], better: float) -> None:
        for stage in stages:
            store.folder(stage.id).mkdir(exist_ok=True)
            score = better if stage.id in best else 0.5
            write_json(store.folder(stage.id) / RECORD, {"facts": {"dice_inner": score}, "files": {}})

    def do(some: Plan, *given: Any, **options: Any) -> int:
        finish(some.stages, 0.6 if not any(s.kind == "evaluate" for s in some.stages) else 0.4)
        return 0

    monkeypatch.setattr("usbench.runs.suite.run_plan", do)
    tests, _ = do_suite(plan, store, installed, SimpleNamespace())
    assert tests and {stage.row["chosen"] for stage in tests} == {"finetune.lr=0.01 (of 3)"}
    assert all(store.has(stage.id) for stage in tests)


def test_of_a_suite_with_a_choice_only_the_chosen_tests_are_wanted(
    installed: Registry, suite_file: File, tmp_path: Path
) -> None:
    plan = plan_suite(installed, read_suite(suite_file(CHOICE)), lambda *_: None, skip_missing=False)
    store = Store(tmp_path / "runs").open()
    (run,) = plan.runs
    first, best = ({s.id for s in trial.stages if s.kind == "evaluate"} for _, trial in run.plans[:2])
    assert {stage.id for stage in plan.wanted(store) if stage.kind == "evaluate"} == first
    write_json(store.root / "store.json", {"schema": 1, "left_out": [".safetensors"]})
    for stage in (*plan.trainings, *(s for s in run.plans[1][1].stages if s.kind == "evaluate")):
        score = 0.6 if stage.id in {s.id for s in run.plans[1][1].stages} else 0.5
        store.folder(stage.id).mkdir()
        write_json(store.folder(stage.id) / RECORD, {"facts": {"dice_inner": score}, "files": {WEIGHTS: ""}})
    assert {stage.id for stage in plan.wanted(store) if stage.kind == "evaluate"} == best
    assert not missing(plan.wanted(store), store)
