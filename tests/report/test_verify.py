"""Whatever is changed in a store after it was written is found, and the rows that it feeds are named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import put

from usbench.data.pack import Pack
from usbench.errors import UsbenchError
from usbench.evaluate.segmentation import CALIBRATION, METRICS
from usbench.hooks import Entry
from usbench.report.columns import LABELS, OF_WHAT, TRAININGS, columns
from usbench.report.verify import Verifier
from usbench.runs.store import Store

Usbench = Callable[..., Any]


def evaluation(runs: Path, loss: str = "simclr", shift: str = "in") -> tuple[Path, str]:
    """The folder and the row's key of an evaluation."""
    for path in runs.glob("stages/evaluate-*/record.json"):
        row = json.loads(path.read_text())["row"]
        if (row["loss"], row["shift"]) == (loss, shift):
            return path.parent, row["setting"]
    raise AssertionError


def refused(usbench: Usbench, place: Path, *words: object) -> str:
    said = usbench("verify", place, *words)
    assert said.code == 1, said.out
    said.one_sentence()
    return str(said.out)


def unsealed(folder: Path) -> None:
    """As somebody would leave it who knows of the digests."""
    record = json.loads((folder / "record.json").read_text())
    del record["files"], record["seal"]
    (folder / "record.json").write_text(json.dumps(record))


def change_a_digit(path: Path) -> None:
    head, row, rest = path.read_text().split("\n", 2)
    number = next(m for m in re.finditer(r"0\.\d{4,}", row))
    digit = row[number.end() - 1]
    path.write_text("\n".join([head, row[: number.end() - 1] + str((int(digit) + 1) % 10) + row[number.end() :], rest]))


def test_an_untouched_store_holds(usbench: Usbench, runs: Path) -> None:
    said = usbench("verify", runs)
    assert said.code == 0, said.out
    assert "10 stages and 6 rows" in said.out and "skipped" not in said.out


@pytest.mark.parametrize("sealed", [True, False])
def test_one_changed_digit_in_a_scores_file_names_it_and_its_row(usbench: Usbench, runs: Path, sealed: bool) -> None:
    folder, key = evaluation(runs)
    change_a_digit(folder / "scores.csv")
    if not sealed:
        unsealed(folder)
    out = refused(usbench, runs)
    line = next(line for line in out.splitlines() if f"{folder.name}/scores.csv" in line)
    assert key in line and ("its mask gives" in out or sealed)


@pytest.mark.parametrize("sealed", [True, False])
def test_one_flipped_bit_in_a_mask_names_the_file_and_its_row(usbench: Usbench, runs: Path, sealed: bool) -> None:
    folder, key = evaluation(runs, "none", "out")
    path = folder / "masks.safetensors"
    data = bytearray(path.read_bytes())
    data[-64 * 64 // 16] ^= 0b1000  # the middle of the last image
    path.write_bytes(data)
    if not sealed:
        unsealed(folder)
    out = refused(usbench, runs)
    assert any(folder.name in line and key in line for line in out.splitlines())


def test_changed_weights_name_every_row_that_was_made_of_them(usbench: Usbench, runs: Path) -> None:
    (folder,) = runs.glob("stages/pretrain-*")
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    line = next(line for line in refused(usbench, runs).splitlines() if "weights" in line)
    assert all(evaluation(runs, "simclr", shift)[1] in line for shift in ("in", "out"))
    assert evaluation(runs, "none")[1] not in line


@pytest.mark.parametrize("what", ["identity", "facts"])
def test_a_changed_record_is_found(usbench: Usbench, runs: Path, what: str) -> None:
    folder, key = evaluation(runs)
    path = folder / "record.json"
    record = json.loads(path.read_text())
    record[what] |= {"label_fraction": 20.0} if what == "identity" else {"steps": 9}
    path.write_text(json.dumps(record))
    out = refused(usbench, runs)
    assert any(f"{folder.name}/record.json" in line and key in line for line in out.splitlines())


def test_a_changed_table_names_the_row_and_the_column(usbench: Usbench, runs: Path) -> None:
    (path,) = runs.glob("*/leaderboard.csv")
    _, key = evaluation(runs)
    lines = path.read_text().split("\n")
    place = next(i for i, line in enumerate(lines) if line.endswith(key))
    lines[place] = lines[place].replace(",cpu,", ",cuda,")
    path.write_text("\n".join(lines))
    for said in (refused(usbench, runs), refused(usbench, path)):
        assert "device is 'cuda' and is 'cpu'" in said and key in said


def test_a_csv_is_checked_with_the_stages_of_its_rows(usbench: Usbench, runs: Path, tmp_path: Path) -> None:
    board = tmp_path / "board.csv"
    assert usbench("leaderboard", runs, "--csv", board).code == 0
    assert usbench("verify", board, "--in", runs).code == 0
    folder, key = evaluation(runs)
    change_a_digit(folder / "scores.csv")
    out = refused(usbench, board, "--in", runs)
    assert f"{folder.name}/scores.csv" in out and key in out
    board.write_text(board.read_text().replace(key, "0" * 16))
    assert "nothing in" in refused(usbench, board, "--in", runs)


def test_what_holds_nothing_does_not_pass(usbench: Usbench, runs: Path, tmp_path: Path) -> None:
    (runs / "empty.csv").write_text("key,loss\n")
    refused = usbench("verify", runs / "empty.csv")
    assert refused.code == 2 and "holds nothing to verify" in refused.one_sentence()
    missing = usbench("verify", tmp_path / "no.csv")
    assert missing.code == 2 and f"there is no file {tmp_path / 'no.csv'}" in missing.one_sentence()


def test_a_table_that_lacks_columns_is_found(usbench: Usbench, runs: Path) -> None:
    path = next(runs.glob("*/leaderboard.csv"))
    pd.read_csv(path, dtype=str).drop(columns=["rank", "score_mean"]).to_csv(path, index=False)
    said = usbench("verify", runs)
    assert said.code == 1 and f"{path}: it lacks the column rank and 1 more" in said.out


@pytest.mark.parametrize(
    ("change", "wrong"),
    [({"device_seconds": "1234.5"}, 0), ({"device_seconds": "fast"}, 1), ({"inner": "0.9"}, 1), ({"load": "a,b,c"}, 1)],
)
def test_of_a_table_of_trainings_only_seconds_and_memory_may_be_others(
    change: dict[str, str], wrong: int, runs: Path
) -> None:
    path = next(runs.glob("*/trainings.csv"))
    table = pd.read_csv(path, dtype=str)
    table.loc[0, list(change)] = list(change.values())
    table.to_csv(path, index=False)
    verifier = Verifier(Store(runs))
    verifier.tables()
    assert len(verifier.report.wrong) == wrong
    table.drop(columns="device_seconds").to_csv(path, index=False)
    (verifier := Verifier(Store(runs))).tables()
    assert len(verifier.report.wrong) == 1


def test_a_half_written_record_is_named_and_left_out_of_the_leaderboard(usbench: Usbench, runs: Path) -> None:
    folder, _ = evaluation(runs)
    (folder / "record.json").write_text('{"row": {')
    assert f"{folder.name}/record.json: missing or damaged" in refused(usbench, runs)
    said = usbench("leaderboard", runs)
    assert said.code == 0 and f"Not in the table: {folder.name}" in " ".join(said.out.split())
    (folder / "record.json").unlink()
    assert "it has no record.json" in refused(usbench, runs)


def test_what_cannot_be_made_again_here_is_said_to_be_skipped(
    usbench: Usbench, store: Store, runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(store, "mine", 0, 0.1)
    said = usbench("verify", store.root)
    assert "skipped: 1 × an evaluation that keeps no masks" in said.out
    monkeypatch.setenv("USBENCH_DATA", str(tmp_path / "empty"))
    for path in runs.glob("*/run.json"):
        path.write_text(path.read_text().replace(".h5", ".gone"))
    said = usbench("verify", runs)
    assert said.code == 0 and "skipped: 3 × an evaluation on 'discs', whose pack" in said.out


def test_a_damaged_pack_is_not_blamed_on_the_scores(
    usbench: Usbench, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(self: Pack) -> None:
        raise UsbenchError(f"{self.path} is damaged.")

    monkeypatch.setattr(Pack, "check", check)
    said = usbench("verify", runs)
    assert said.code == 0 and "discs', whose pack is of no use here: " in said.out and "is damaged" in said.out


def test_a_protocol_that_was_changed_is_not_blamed_on_the_scores(
    usbench: Usbench, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Entry, "parse", lambda self, options: {}["gone"])
    said = refused(usbench, runs)
    assert "protocol 'segment' failed: KeyError: 'gone'" in said
    monkeypatch.setattr(Entry, "source", "another")
    said = usbench("verify", runs)
    assert said.code == 0 and "by protocol 'segment', which was changed since" in said.out


def test_a_table_of_rows_with_two_baselines_holds_by_the_run_that_made_it(
    usbench: Usbench, store: Store, tmp_path: Path
) -> None:
    for place, gain in enumerate((0.0, 0.1)):
        for loss in ("none", "mine"):
            put(store, loss, 0, gain + 0.01 * (loss == "mine"), arena=f"a{place}", setting=f"{loss}{place}")
    tests: list[list[list[str]]] = [[], []]
    for path in store.stages.glob("evaluate-*/record.json"):
        record = json.loads(path.read_text())
        tests[int(record["row"]["setting"][-1])].append([path.parent.name, "test"])
        path.write_text(json.dumps({**record, "row": {**record["row"], "arena": "a"}}))
    for place, stages in enumerate(tests):
        (store.root / f"run{place}").mkdir()
        run = {"spec": {}, "stages": stages, "packs": {}}
        (store.root / f"run{place}" / "run.json").write_text(json.dumps(run))
    assert usbench("leaderboard", store.root, "--csv", tmp_path / "b.csv").code == 0
    table = pd.read_csv(tmp_path / "b.csv").set_index("key")
    assert table.delta_vs_supervised["mine0"] == pytest.approx(0.01) == table.delta_vs_supervised["mine1"]
    found = Verifier(store)
    list(found.csv(tmp_path / "b.csv"))
    assert [what for what, _ in found.report.wrong if "delta_vs" in what] == []


def test_the_columns_and_the_empty_masks_are_explained(usbench: Usbench) -> None:
    said = usbench("leaderboard", "--explain")
    assert said.code == 0 and "delta_vs_best" in said.out and "surface_dice" in said.out
    assert re.search(r"^\s*not empty\s+empty\s+0\s+0\s+nan\s+nan\s+0\s+0\s+0\s*$", said.out, re.M)
    assert "rankme" in said.out and "linear_" in said.out
    assert usbench("leaderboard").one_sentence()


def test_every_column_of_the_published_tables_is_explained() -> None:
    labels = [start + name for start in ("", *OF_WHAT) for name in LABELS]
    known = {*columns([*METRICS, CALIBRATION, *labels]), *TRAININGS}
    published = Path(__file__).parents[2] / "results"
    tables = [*published.glob("*/leaderboard.csv"), *published.glob("*/trainings.csv")]
    assert len(tables) > 5
    for path in tables:
        assert set(pd.read_csv(path, nrows=0).columns) <= known, path


def test_a_row_that_is_cut_short_is_found(runs: Path, usbench: Usbench) -> None:
    table = next(runs.glob("*/leaderboard.csv"))
    head, first, *rest = table.read_text().splitlines(keepends=True)
    table.write_text("".join([head, first[:12] + "\n", *rest]))
    said = usbench("verify", table)
    assert said.code == 2 and f"{table} cannot be read as a leaderboard (a row has no key)" in said.one_sentence()


def test_a_row_that_stands_twice_is_found(runs: Path, usbench: Usbench) -> None:
    table = next(runs.glob("*/leaderboard.csv"))
    head, first, *rest = table.read_text().splitlines(keepends=True)
    table.write_text("".join([head, first.replace("simclr", "better"), first, *rest]))
    said = usbench("verify", table)
    assert said.code == 2 and "two rows have the key" in said.one_sentence()
    assert "two rows have the key" in usbench("verify", runs).out


def test_a_changed_table_beside_the_leaderboard_is_found(usbench: Usbench, runs: Path) -> None:
    (path,) = runs.glob("*/trainings.csv")
    change_a_digit(path)
    assert f"{path}: line 2 is another when made again" in refused(usbench, runs)
    said = usbench("verify", path)
    assert said.code == 2 and "cannot be read as a leaderboard (no column 'score_mean')" in said.one_sentence()


def test_what_is_wrong_is_told_also_where_nothing_can_be_trained_again(usbench: Usbench, runs: Path) -> None:
    assert usbench("verify", runs, "--rerun", "zz").code == 2
    folder, _ = evaluation(runs)
    change_a_digit(folder / "scores.csv")
    out = refused(usbench, runs, "--rerun", "zz")
    assert f"{folder.name}/scores.csv" in out and "not trained again: --rerun zz: no row" in out


def test_a_folder_of_somebody_elses_among_the_stages_hides_nothing(usbench: Usbench, runs: Path) -> None:
    (runs / "stages" / "notes").mkdir()
    folder, _ = evaluation(runs)
    change_a_digit(folder / "scores.csv")
    out = refused(usbench, runs)
    assert "stages/notes/record.json" in out and f"{folder.name}/scores.csv" in out


def test_a_field_too_large_for_a_table_is_bad_input(usbench: Usbench, runs: Path) -> None:
    (runs / "large.csv").write_text(f"key,score_mean\n{'x' * 200_000},0.5\n")
    said = usbench("verify", runs / "large.csv")
    assert said.code == 2 and "cannot be read as a leaderboard (field larger" in said.one_sentence()
