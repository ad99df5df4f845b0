"""What is published can be made again from nothing else, holds no image, and gives away whoever changes it."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from usbench import leaderboard, load
from usbench.hooks import registry
from usbench.report.summary import summarise
from usbench.runs.agenda import missing
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.store import Store
from usbench.share.publish import ARCHIVE, unpack_into
from usbench.spec import resolve

Usbench = Callable[..., Any]


@pytest.fixture
def published(tiny_run: Path, tmp_path: Path, usbench: Usbench) -> Path:
    """A folder with a table and its archive, far from its store."""
    assert usbench("publish", tiny_run, "-o", tmp_path / "out").code == 0
    return tmp_path / "out"


def changed(archive: Path, change: Callable[[str, bytes], tuple[str, bytes]]) -> None:
    """Write an archive again, each member through `change`."""
    old = archive.rename(archive.with_suffix(".old"))
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(archive, "w") as target:
        for name in source.namelist():
            target.writestr(*change(name, source.read(name)))


def test_a_published_table_is_made_again_from_its_archive_alone(
    published: Path, tiny_run: Path, usbench: Usbench
) -> None:
    assert (published / "leaderboard.csv").read_bytes() == (tiny_run / "leaderboard.csv").read_bytes()
    said = usbench("verify", published / "leaderboard.csv")
    assert said.code == 0 and "all that could be made again is as it was" in said.out
    assert "weights.safetensors, which was not published" in said.out
    rows = (published / "leaderboard.csv").read_text().count("\n") - 1
    assert f"and {rows} rows looked at" in said.out


def test_pictures_are_published_but_none_with_an_image_in_it(published: Path, tiny_run: Path) -> None:
    there = {path.name for path in tiny_run.glob("*.png")}
    assert {"overlays.png", "dice.png"} <= there
    assert "dice.png" in (found := {path.name for path in published.glob("*.png")}) and "overlays.png" not in found


def test_a_damaged_table_is_not_published(tiny_run: Path, tmp_path: Path, usbench: Usbench) -> None:
    store = shutil.copytree(tiny_run.parent, tmp_path / "store")
    (store / tiny_run.name / "leaderboard.csv").write_text("loss,dice\nnone,0.5\n")
    said = usbench("publish", store / tiny_run.name, "-o", tmp_path / "out")
    assert said.code == 2 and "leaderboard.csv cannot be read" in said.one_sentence()
    assert not (tmp_path / "out").exists()


def test_an_archive_holds_no_weights_no_masks_and_no_place_and_is_the_same_again(
    published: Path, tiny_run: Path, tmp_path: Path, usbench: Usbench
) -> None:
    archive = zipfile.ZipFile(published / ARCHIVE)
    assert {Path(name).suffix for name in archive.namelist()} == {".json", ".csv"}
    assert str(tiny_run.parent.parent) not in "".join(archive.read(name).decode() for name in archive.namelist())
    assert usbench("publish", tiny_run, "-o", tmp_path / "again").code == 0
    assert (tmp_path / "again" / ARCHIVE).read_bytes() == (published / ARCHIVE).read_bytes()


def test_a_published_run_says_of_files_their_names_alone(tiny_run: Path, tmp_path: Path, usbench: Usbench) -> None:
    store = shutil.copytree(tiny_run.parent, tmp_path / "store")
    path = store / tiny_run.name / "run.json"
    run = json.loads(path.read_text())
    run["spec"] |= {
        "split": ["discs=/home/me/fold.json", "bright=../private/fold.json"], "data": ["../private/discs.h5"],
        "ood": ["~/bright.h5", "phantom:l7,patients=3"], "init": "private/start.safetensors",
        "loss": "moco:queue=512", "backbone": "unet:tu-some/net.v1,widths=8/16", "aug": "spatial+freq-only",
    }  # fmt: skip
    run["packs"] = {"discs": "../private/discs.h5"}
    path.write_text(json.dumps(run))
    assert usbench("publish", path.parent, "-o", tmp_path / "out").code == 0
    said = json.loads(zipfile.ZipFile(tmp_path / "out" / ARCHIVE).read("run/run.json"))
    assert said["packs"] == {"discs": "discs.h5"} and said["spec"] == run["spec"] | {
        "split": ["discs=fold.json", "bright=fold.json"], "data": ["discs.h5"],
        "ood": ["bright.h5", "phantom:l7,patients=3"], "init": "start.safetensors",
    }  # fmt: skip


def test_an_unpacked_archive_is_a_store(published: Path, tiny_run: Path, tmp_path: Path, usbench: Usbench) -> None:
    said = usbench("store", "unpack", published, "-o", tmp_path / "store")
    assert said.code == 0 and f"{len(list(tiny_run.parent.glob('stages/*')))} stages, without weights" in said.out
    said = usbench("leaderboard", tmp_path / "store", "--csv", tmp_path / "board.csv")
    assert said.code == 0 and (tmp_path / "board.csv").read_bytes() == (tiny_run / "leaderboard.csv").read_bytes()
    assert usbench("show", tmp_path / "store" / "run").code == 0
    assert usbench("verify", tmp_path / "store").code == 0


def test_a_published_folder_is_read_as_a_store_is_beside_ones_own(
    published: Path, tiny_run: Path, resnet_run: Path, tmp_path: Path, usbench: Usbench
) -> None:
    assert usbench("leaderboard", published, "--csv", tmp_path / "alone.csv").code == 0
    assert (tmp_path / "alone.csv").read_bytes() == (tiny_run / "leaderboard.csv").read_bytes()
    together = leaderboard(published, resnet_run.parent)
    assert set(together.backbone) == {"unet-tiny", "unet:resnet18,width=32"}
    assert len(load(published).scores) == len(load(tiny_run.parent).scores)
    alike = together.query("backbone == 'unet-tiny' and test_data == 'discs' and label_fraction == 100")
    said = usbench("compare", *alike.key[:2], "--in", published)
    assert said.code == 0 and "Images that differ most" in said.out
    every = load(published).cells
    assert len(every[0].results[0].scores()), "what was unpacked is there as long as anybody may read it"
    said = usbench("verify", published)
    assert said.code == 0 and "rows looked at" in said.out


def test_what_is_added_to_an_unpacked_archive_trains_only_what_it_needs_the_weights_of(
    published: Path, tiny_settings: dict[str, Any], quiet: Any, tmp_path: Path
) -> None:
    unpack_into(published, store := tmp_path / "store")
    steps = {"pretrain": {"steps": 2, "batch": 8}, "finetune": {"steps": 2, "batch": 4}}
    settings = {**tiny_settings, **steps, "loss": "simclr", "seeds": [0, 1]}
    plan = make_plan(registry(), resolve(settings), lambda *_: None)
    there = Store(store)
    assert run_plan(plan, there, registry(), quiet) == 0  # all of it is known, and no weights are asked for
    more = make_plan(registry(), resolve({**settings, "labels": [25], "seeds": [1]}), lambda *_: None)
    wanted = missing(more.stages, there)
    assert [stage.kind for stage in wanted].count("pretrain") == 1
    assert run_plan(more, there, registry(), quiet) == len(wanted)
    pretrained = {stage.id for stage in plan.stages if stage.kind == "pretrain"}
    assert sum(there.ready(stage) for stage in pretrained) == 1 and all(map(there.has, pretrained))
    assert not missing(plan.stages, there) and not missing(more.stages, there)


def test_a_run_beside_published_tests_draws_what_has_masks_and_is_right(
    published: Path, tiny_settings: dict[str, Any], make_scans: Any, make_pack: Any, quiet: Any, tmp_path: Path,
    usbench: Usbench,
) -> None:  # fmt: skip
    unpack_into(published, store := tmp_path / "store")
    steps = {"pretrain": {"steps": 2, "batch": 8}, "finetune": {"steps": 2, "batch": 4}}
    other = make_pack(tmp_path / "other.h5", make_scans(6, seed=2, background=90.0), name="other")
    more = {**tiny_settings, **steps, "loss": "simclr", "ood": [*tiny_settings["ood"], str(other)]}
    plan = make_plan(registry(), resolve(more), lambda *_: None)
    there = Store(store)
    run_plan(plan, there, registry(), quiet)
    summary = summarise(plan, there)
    assert {cell.row["test_data"] for cell, _ in summary.outlined} == {"other"}
    assert (summary.folder / "overlays.png").is_file()
    said = usbench("verify", store)
    assert said.code == 0 and "seconds and memory of a training that was made again" in said.out


@pytest.mark.parametrize("sealed", [True, False])
def test_of_a_stage_what_was_recorded_is_published(
    sealed: bool, tiny_run: Path, tmp_path: Path, usbench: Usbench
) -> None:
    store = shutil.copytree(tiny_run.parent, tmp_path / "store")
    folder = next(store.glob("stages/evaluate-*"))
    if sealed:
        (folder / "stray.csv").write_text("a\n1\n")
    else:  # as records were before files were named in them
        record = json.loads((folder / "record.json").read_text())
        (folder / "record.json").write_text(json.dumps({k: v for k, v in record.items() if k not in ("files", "seal")}))
    assert usbench("publish", store / tiny_run.name, "-o", tmp_path / "out").code == 0
    unpack_into(tmp_path / "out", again := tmp_path / "again")
    there = {path.name for path in (again / "stages" / folder.name).iterdir()}
    assert {"record.json", "scores.csv"} <= there and "stray.csv" not in there


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "gone"])
def test_a_damaged_stage_is_not_published(damage: str, tiny_run: Path, tmp_path: Path, usbench: Usbench) -> None:
    store = shutil.copytree(tiny_run.parent, tmp_path / "store")
    folder = next(store.glob("stages/evaluate-*"))
    record, scores = folder / "record.json", folder / "scores.csv"
    if damage == "gone":
        scores.unlink()
    else:
        path = scores if damage == "changed" else record
        path.write_text("{}" if damage == "empty" else path.read_text()[:100])
    said = usbench("publish", store / tiny_run.name, "-o", tmp_path / "out")
    assert said.code == 2 and str(folder) in said.one_sentence() and not (tmp_path / "out").exists()
    assert usbench("store", "check", store).code == 1


def test_what_was_published_without_weights_is_not_exported(published: Path, tmp_path: Path, usbench: Usbench) -> None:
    unpack_into(published, store := tmp_path / "store")
    said = usbench("export", store / "run", "--labels", "100", "--seed", "0", "-o", tmp_path / "exported")
    assert said.code == 2 and "was published without its weights: run it again" in said.one_sentence()


def test_a_changed_score_or_table_is_found(published: Path, usbench: Usbench) -> None:
    table = published / "leaderboard.csv"
    whole = table.read_text()
    table.write_text(whole.replace("simclr", "rcl"))
    assert "loss is 'rcl' and is 'simclr' when made again" in usbench("verify", table).out
    table.write_text(whole)
    changed(published / ARCHIVE, lambda n, b: (n, b.replace(b",True,", b",False,", 1) if "scores" in n else b))
    said = usbench("verify", table)
    assert said.code == 1 and "scores.csv: it is not what was recorded" in said.out and "feeds" in said.out


@pytest.mark.parametrize("name", ["../out.csv", "/etc/out.csv", "stages/../../out.csv", "stages/a/b/c.csv"])
def test_a_member_that_no_publication_has_is_refused(name: str, published: Path, usbench: Usbench) -> None:
    with zipfile.ZipFile(published / ARCHIVE, "a") as archive:
        archive.writestr(name, "x")
    said = usbench("verify", published / "leaderboard.csv")
    assert said.code == 2 and "has the member" in said.err


def test_a_cut_archive_and_a_folder_that_is_no_run_are_one_sentence(
    published: Path, tiny_run: Path, tmp_path: Path, usbench: Usbench
) -> None:
    (published / ARCHIVE).write_bytes((published / ARCHIVE).read_bytes()[:-1000])
    said = usbench("verify", published / "leaderboard.csv")
    assert said.code == 2 and "download it again" in said.err
    said = usbench("publish", tiny_run, "-o", tiny_run)
    assert said.code == 2 and "name another" in said.err
    said = usbench("publish", tmp_path, "-o", tmp_path / "out")
    assert said.code == 2 and "is no run's or suite's folder" in said.err


def test_a_changed_table_beside_a_published_leaderboard_is_found(published: Path, usbench: Usbench) -> None:
    table = published / "trainings.csv"
    table.write_text(table.read_text().replace("simclr", "rcl"))
    said = usbench("verify", published)
    assert said.code == 1 and f"wrong: {table}: line" in said.out


def test_a_published_result_is_named_by_its_archive_and_stands_for_a_store(
    published: Path, tmp_path: Path, usbench: Usbench
) -> None:
    said = usbench("compare", "zz", "zz", "--in", published)
    assert said.code == 2 and f"in {published / ARCHIVE}" in said.one_sentence()
    said = usbench("verify", published, "--rerun", "zz")
    assert said.code == 2 and f"no row begins so in {published / ARCHIVE}" in said.one_sentence()
    assert usbench("leaderboard", published, "--csv", tmp_path / "board.csv").code == 0
    said = usbench("verify", tmp_path / "board.csv", "--in", published)
    assert said.code == 0 and "all that could be made again is as it was" in said.out


def test_of_an_unpacked_archive_only_what_should_be_there_is_missed(
    published: Path, tmp_path: Path, usbench: Usbench
) -> None:
    unpack_into(published / ARCHIVE, store := tmp_path / "store")
    assert usbench("store", "check", store).code == 0
    next(store.glob("stages/evaluate-*/scores.csv")).unlink()
    said = usbench("store", "check", store)
    assert said.code == 1 and said.out.count("it is missing") == 1


def test_every_file_of_a_stage_comes_back_as_it_was(published: Path, tiny_run: Path, tmp_path: Path) -> None:
    unpack_into(published, store := tmp_path / "store")
    there = {path.relative_to(store): path.read_bytes() for path in store.glob("stages/*/*")}
    before = [path for path in tiny_run.parent.glob("stages/*/*") if path.suffix != ".safetensors"]
    assert there == {path.relative_to(tiny_run.parent): path.read_bytes() for path in before}
    assert not (store / "tables").exists()


@pytest.mark.parametrize(
    "table", [b"", b"a,b\nc,dice,0.5\n", b"../a\n,dice,0.5\n", b'evaluate-0\n,dice,0.5\n,iou,"', b"\xff\n"]
)
def test_tables_that_no_publication_has_are_refused(
    table: bytes, published: Path, tmp_path: Path, usbench: Usbench
) -> None:
    with zipfile.ZipFile(published / ARCHIVE, "a") as archive:
        archive.writestr("tables/99-scores.csv", table)
    said = usbench("store", "unpack", published, "-o", tmp_path / "store")
    assert said.code == 2 and f"{published / ARCHIVE} " in said.one_sentence()
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_an_archive_of_every_table_by_itself_is_still_read(published: Path, tmp_path: Path, usbench: Usbench) -> None:
    unpack_into(published, store := tmp_path / "store")
    with zipfile.ZipFile(published / ARCHIVE, "w") as archive:
        for path in filter(Path.is_file, store.rglob("*")):
            archive.write(path, path.relative_to(store))
    assert usbench("verify", published).code == 0


def test_a_store_is_unpacked_into_a_new_folder_only(published: Path, tmp_path: Path, usbench: Usbench) -> None:
    said = usbench("store", "unpack", published, "-o", published)
    assert said.code == 2 and "is there already" in said.one_sentence()
    said = usbench("store", "unpack", tmp_path, "-o", tmp_path / "store")
    assert said.code == 2 and "there is no published result at" in said.one_sentence()


def test_a_table_of_what_was_published_there_before_goes(tiny_run: Path, tmp_path: Path, usbench: Usbench) -> None:
    (tmp_path / "out").mkdir()
    for name in ("confusion.csv", "notes.txt"):
        (tmp_path / "out" / name).write_text("old")
    assert usbench("publish", tiny_run, "-o", tmp_path / "out").code == 0
    assert not (tmp_path / "out" / "confusion.csv").exists() and (tmp_path / "out" / "notes.txt").exists()
