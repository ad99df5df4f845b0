"""Suite files: products of lists, settings over settings, and a sentence for whatever is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from usbench.errors import UsbenchError
from usbench.suites import Suite, read_suite

BENCHMARKS = sorted((Path(__file__).parent.parent / "benchmarks").glob("*.toml"))


def suite(tmp_path: Path, text: str) -> Suite:
    (tmp_path / "s.toml").write_text(text)
    return read_suite(tmp_path / "s.toml")


def test_a_suite_is_the_product_of_its_lists_over_common_settings(tmp_path: Path) -> None:
    read = suite(
        tmp_path,
        """
        name = "grid"
        [base]
        labels = [20, 100]
        pretrain = { steps = 50, lr = 1e-3 }
        [[runs]]
        ood = ["phantom:c5"]
        pretrain = { batch = 16 }
        over = { loss = ["rcl", "simclr"], data = ["phantom:l7", "phantom:l7+phantom:l12"], pretrain.lr = [1e-3, 1e-4] }
        [[runs]]
        loss = "byol"
        """,
    )
    assert read.name == "grid" and len(read.runs) == 9
    specs = [run.spec for run in read.runs]
    assert {(s.loss, s.data, s.pretrain.lr) for s in specs[:8]} == {
        (loss, data, lr)
        for loss in ("rcl", "simclr")
        for data in (("phantom:l7",), ("phantom:l7", "phantom:l12"))
        for lr in (1e-3, 1e-4)
    }
    assert all(s.labels == (20, 100) and s.pretrain.steps == 50 for s in specs)
    assert all(s.pretrain.batch == 16 and s.ood == ("phantom:c5",) for s in specs[:8])
    assert specs[8].pretrain.batch == 64


def test_a_group_of_settings_that_is_no_table_is_said_so(tmp_path: Path) -> None:
    text = '[base]\nloss = "none"\npretrain = 3\n[[runs]]\nover = { "pretrain.lr" = [1e-3] }\n'
    with pytest.raises(UsbenchError, match="'pretrain' is 3 and is to have 'lr' too: make it a table"):
        suite(tmp_path, text)


def test_what_is_chosen_has_the_same_trials_in_every_run(tmp_path: Path) -> None:
    read = suite(
        tmp_path,
        """
        [[runs]]
        over = { loss = ["rcl", "none"] }
        select = { over = { "finetune.encoder_factor" = [1.0, 0.1], "finetune.lr" = [1e-3, 4e-3] }, on = "inner" }
        """,
    )
    for run in read.runs:
        trials = run.trials()
        assert [(s.finetune.encoder_factor, s.finetune.lr) for _, s in trials] == [
            (1.0, 1e-3), (1.0, 4e-3), (0.1, 1e-3), (0.1, 4e-3),
        ]  # fmt: skip
        assert trials[1][0] == "finetune.encoder_factor=1.0, finetune.lr=0.004"


@pytest.mark.parametrize("path", [p for p in BENCHMARKS if p.stem != "quick"], ids=lambda path: path.stem)
def test_the_suites_that_come_with_the_house_can_be_read(path: Path) -> None:
    read = read_suite(path)
    assert read.name == path.stem and read.about and read.runs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[runs]", "is not TOML"),
        ("name = 'x'", "has no [[runs]]"),
        ("[[run]]\nloss = 'rcl'", "unknown field 'run' .* did you mean 'runs'"),
        ("runs = 3", "is not made of"),
        ("[[runs]]\naug = 'freq'", "no loss is named"),
        ("[[runs]]\nlos = 'rcl'", "unknown setting 'los': did you mean 'loss'"),
        ("[[runs]]\nover = { los = ['rcl'] }", "unknown setting 'los': did you mean 'loss'"),
        ("[[runs]]\nloss = 'rcl'\nseeds = 3", r"write \[0, 1, 2\] for 3 of them, or \[3\] for this one"),
        ("[[runs]]\nloss = 'rcl'\nseed = 3", "unknown setting 'seed': did you mean 'seeds'"),
        ("[[runs]]\nover = { loss = [] }", "'loss' is no list of values, or an empty one"),
        ("[[runs]]\nover = { loss = 'rcl' }", "'loss' is no list"),
        ("[[runs]]\nloss = 'rcl'\nover = 3", "is no table of lists"),
        ("[[runs]]\nloss = 'rcl'\nselect = 3", "select in .* is not"),
        ("[[runs]]\nloss = 'rcl'\nselect = { over = { 'finetune.lr' = [1] }, on = 'test' }", "never on a test set"),
        ("[[runs]]\nloss = 'rcl'\nselect = { over = { seeds = [[1], [2]] } }", "settings of pretrain and finetune"),
        ("[[runs]]\nloss = 'rcl'\nselect = { over = { 'finetune.lrr' = [1] } }", "unknown setting 'lrr'"),
        ("[[runs]]\nloss = 'rcl'\nselect = { over = { 'finetune.lr' = [-1] } }", "finetune.lr"),
    ],
)
def test_a_bad_suite_is_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    import re

    with pytest.raises(UsbenchError) as refused:
        suite(tmp_path, text)
    assert re.search(words.replace("[[", r"\[\[").replace("]]", r"\]\]"), str(refused.value)), str(refused.value)
    assert "\n" not in str(refused.value)
