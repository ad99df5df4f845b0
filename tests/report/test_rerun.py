"""Training again finds what no digest can: a score that was changed by somebody who made the digests anew."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import STEPS

from usbench.errors import RunFailed
from usbench.hooks import Registry
from usbench.report.files import write_csv
from usbench.report.leaderboard import table_of
from usbench.report.suite import write_suite
from usbench.report.summary import read_summary
from usbench.runs.records import digests_of, seal_of
from usbench.runs.stage import Stage
from usbench.runs.stages import Stages
from usbench.runs.store import Store
from usbench.runs.suite import do_suite, plan_suite
from usbench.suites import read_suite

Usbench = Callable[..., Any]


def everything(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def record_of(runs: Path, loss: str, shift: str = "in") -> Path:
    for path in runs.glob("stages/evaluate-*/record.json"):
        row = json.loads(path.read_text())["row"]
        if (row["loss"], row["shift"]) == (loss, shift):
            return path
    raise AssertionError


def reseal(folder: Path, **changed: Any) -> None:
    """As a forger would: every digest is made anew."""
    path = folder / "record.json"
    record = {**json.loads(path.read_text()), **changed, "files": digests_of(folder)}
    path.write_text(json.dumps({**record, "seal": seal_of(record)}))


def forge(runs: Path, loss: str, **changed: Any) -> str:
    """Better scores for an image, in a store that holds otherwise; returns the row's key."""
    path = record_of(runs, loss)
    folder = path.parent
    scores = folder / "scores.csv"
    head, *rows = scores.read_text().splitlines()
    column = head.split(",").index("dice")
    place = next(i for i, row in enumerate(rows) if row.split(",")[column] not in ("", "1"))
    values = rows[place].split(",")
    values[column] = "0.987654"
    rows[place] = ",".join(values)
    scores.write_text("\n".join([head, *rows]) + "\n")
    (folder / "masks.safetensors").unlink()  # without the masks nothing contradicts it
    reseal(folder, **changed)
    for run in runs.glob("*/run.json"):
        write_csv(table_of(read_summary(run.parent, Store(runs)).cells), run.parent / "leaderboard.csv")
    return str(json.loads(path.read_text())["row"]["setting"])


def test_a_store_trained_again_is_equal_to_the_byte_and_left_alone(usbench: Usbench, runs: Path) -> None:
    before = everything(runs)
    said = usbench("verify", runs, "--rerun", "all")
    assert said.code == 0, said.err + said.out
    assert len(re.findall("the scores are equal to the byte", said.out)) == 6
    assert re.search(r"10 stages, which took \d+ s", said.out)
    assert everything(runs) == before


def test_by_default_the_cheapest_row_is_trained_again(usbench: Usbench, runs: Path) -> None:
    record = record_of(runs, "none", "out")
    for path in runs.glob("stages/*/record.json"):
        cheap = path == record or json.loads(path.read_text())["row"]["loss"] == "none"
        reseal(path.parent, seconds=1 if path == record else 2 if cheap else 100)
    said = usbench("verify", "--rerun", runs)  # what follows is the store, not how many
    assert said.code == 0, said.err + said.out
    assert "2 stages, which took 3 s" in said.out
    assert re.findall(r"to train again: (\w+) on (\w+)", said.out) == [("none", "bright")]


def test_a_forged_score_with_fresh_digests_is_caught(usbench: Usbench, runs: Path) -> None:
    key = forge(runs, "none")
    assert usbench("verify", runs).code == 0  # nothing else could know
    said = usbench("verify", runs, "--rerun", key[:6])
    assert said.code == 1
    said.one_sentence()
    (line,) = [line for line in said.out.splitlines() if "trained again on the same versions" in line]
    assert "1 of 8 images differ" in line and "0.987654 is recorded" in line and key in line
    assert "its weights are equal, so it is the test that differs" in line


def test_a_difference_under_other_versions_is_a_note_with_its_size(usbench: Usbench, runs: Path) -> None:
    key = forge(runs, "none", versions={"torch": "1.0"})
    said = usbench("verify", runs, "--rerun", key)
    assert said.code == 0, said.err
    lines = [line for line in said.out.splitlines() if line.startswith("note: ")]
    assert len(lines) == 1 and "torch was 1.0 and is" in lines[0] and "0.987654 is recorded" in lines[0]
    was, now = map(float, re.findall(r"its mean dice was ([\d.]+) and is ([\d.]+)", lines[0])[0])
    assert was > now


def test_a_key_that_no_row_has_is_refused(usbench: Usbench, runs: Path) -> None:
    said = usbench("verify", runs, "--rerun", "zzzz")
    assert said.code == 2 and "no row" in said.one_sentence()


def test_a_pack_of_another_digest_is_one_sentence(
    usbench: Usbench, runs: Path, make_scans: Any, make_pack: Any, tmp_path: Path
) -> None:
    for path in runs.glob("*/run.json"):
        run = json.loads(path.read_text())
        run["spec"]["data"] = [str(make_pack(tmp_path / "discs.h5", make_scans(seed=5), name="discs"))]
        path.write_text(json.dumps(run))
    said = usbench("verify", runs, "--rerun")
    assert said.code == 2 and "a pack of 'discs' has another digest" in said.one_sentence()
    for path in runs.glob("*/run.json"):
        path.write_text(path.read_text().replace("discs.h5", "gone.h5"))
    said = usbench("verify", runs, "--rerun")
    assert said.code == 2 and "gone.h5" in said.one_sentence()


def test_a_changed_plugin_is_one_sentence(usbench: Usbench, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from usbench.runs.plan import Planner

    own = Planner._identity

    def changed(part: Any) -> dict[str, Any]:
        return {**own(part), "source": "0" * 16} if part[0].kind == "loss" else own(part)

    key = json.loads(record_of(runs, "simclr").read_text())["row"]["setting"]
    monkeypatch.setattr(Planner, "_identity", staticmethod(changed))
    said = usbench("verify", runs, "--rerun", key)
    assert said.code == 2 and "loss 'simclr' was changed since: its source" in said.one_sentence()


def test_a_row_that_fails_does_not_hide_what_the_others_came_to(
    usbench: Usbench, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Stages.attempt

    def fails(self: Stages, stage: Stage, folder: Path, watcher: Any) -> dict[str, Any]:
        if stage.kind == "pretrain":
            raise RunFailed("of course.")
        return own(self, stage, folder, watcher)

    monkeypatch.setattr(Stages, "attempt", fails)
    said = usbench("verify", runs, "--rerun", "all")
    assert said.code == 0 and "equal to the byte" in said.out, said.err
    lost = [line for line in said.out.splitlines() if "skipped" in line and "simclr" in line]
    assert lost and all("since test simclr" in line and "failed or was left out" in line for line in lost)


@pytest.fixture(scope="module")
def suite(tiny_settings: dict[str, Any], quiet: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a suite that chose a learning rate."""
    registry, place = Registry(), tmp_path_factory.mktemp("suite")
    registry.load_entry_points()
    settings = {**tiny_settings, "labels": [100], "seeds": [0], "loss": "none"}
    text = "".join(f"{k} = {json.dumps(v)}\n" for k, v in settings.items() if not isinstance(v, dict))
    steps = "".join(f"[base.{k}]\nsteps = 2\nbatch = {v['batch']}\n" for k, v in STEPS.items())
    choice = "[[runs]]\nselect = { over = { 'finetune.lr' = [1e-3, 1e-2] }, on = 'inner' }\n"
    (place / "s.toml").write_text(f"[base]\n{text}{steps}{choice}")
    plan = plan_suite(registry, read_suite(place / "s.toml"), lambda *_: None, skip_missing=False)
    store = Store(place / "runs").open()
    tests, _ = do_suite(plan, store, registry, quiet)
    return write_suite(plan, tests, store)[0]


def test_a_row_that_a_suite_chose_can_be_trained_again(usbench: Usbench, suite: Path) -> None:
    table = pd.read_csv(suite / "leaderboard.csv")
    said = usbench("verify", suite.parent, "--rerun", table.key[table.loss == "none"].iloc[0])
    assert said.code == 0 and "equal to the byte" in said.out, said.err + said.out


def test_the_table_of_a_suite_holds_where_it_lies_and_where_it_is_published(
    usbench: Usbench, suite: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(suite / "leaderboard.csv")
    assert set(table.suite) == {"s"} and set(table.chosen) == {"finetune.lr=0.001 (of 2)"}
    for place in (suite.parent, suite / "leaderboard.csv"):
        said = usbench("verify", place)
        assert said.code == 0 and f"{len(table)} rows looked at" in said.out, said.err + said.out
    assert usbench("publish", suite, "-o", tmp_path / "out").code == 0
    published = tmp_path / "out" / "leaderboard.csv"
    said = usbench("verify", published)
    assert said.code == 0 and f"{len(table)} rows looked at" in said.out, said.err + said.out
    published.write_text(published.read_text().replace("(of 2)", "(of 9)"))
    said = usbench("verify", published)
    assert said.code == 1 and "is 'finetune.lr=0.001 (of 2)' when made again" in said.out
