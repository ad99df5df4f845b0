"""What a user types, from the first run to the leaderboard."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from usbench import cli
from usbench.data.pack import Pack
from usbench.report.columns import COLUMNS

Typed = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def typed(usbench: Callable[..., Any]) -> Typed:
    """A command in this process → its exit code, what it printed, and what it complained of."""

    def call(*words: str) -> tuple[int, str, str]:
        said = usbench(*words)
        return said.code, said.out, said.err

    return call


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def folder_of(output: str) -> Path:
    return Path(re.findall(r"usbench show (.+)$", output.strip(), re.M)[-1])


def test_a_run_ends_with_a_table_a_csv_and_pictures(typed: Typed, tiny: list[str], store: Path) -> None:
    code, out, _ = typed("run", "--loss", "rcl", *tiny, "--out", str(store))
    assert code == 0
    assert "Mean Dice of lesion images" in out and "none-long" in out and "out" in out
    assert "reconstruction" in out
    assert re.search(r"^(\d+) of \1 stages computed\. Again", out, re.M)
    folder = folder_of(out)
    for name in ("overlays.png", "curves.png", "dice.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
    table = pd.read_csv(folder / "leaderboard.csv")
    assert list(table.columns) == list(COLUMNS)
    assert set(table.loss) == {"rcl", "none", "none-long"}
    assert set(table.test_data) == {"discs", "bright"} and set(table["shift"]) == {"in", "out"}
    pretrained = table[table.loss == "rcl"]
    assert pretrained.delta_vs_supervised.notna().all() and pretrained.reconstruction.all()
    assert table[table.loss == "none"].delta_vs_supervised.isna().all()
    assert table.p_holm.isna().all()  # one seed: no test


def test_the_same_command_again_computes_nothing(typed: Typed, tiny: list[str], store: Path) -> None:
    code, first, _ = typed("run", "--loss", "rcl", *tiny, "--out", str(store))
    before = (folder_of(first) / "leaderboard.csv").read_bytes()
    code, again, _ = typed("run", "--loss", "rcl", *tiny, "--out", str(store))
    assert code == 0
    assert re.search(r"^0 of \d+ stages computed, the rest was there\.", again, re.M)
    assert (folder_of(again) / "leaderboard.csv").read_bytes() == before


def test_another_loss_shares_the_baselines(typed: Typed, tiny: list[str], store: Path) -> None:
    _, plan, _ = typed("run", "--loss", "vicreg", *tiny, "--out", str(store), "--dry-run")
    states = re.findall(r"(cached|to do)", plan)
    assert states.count("cached") == 12 and states.count("to do") == 7
    assert not list(store.glob("vicreg*"))


def test_show_and_leaderboard_tell_the_same(typed: Typed, tiny: list[str], store: Path, tmp_path: Path) -> None:
    _, out, _ = typed("run", "--loss", "rcl", *tiny, "--out", str(store))
    folder = folder_of(out)
    code, shown, _ = typed("show", str(folder))
    assert code == 0 and "RankMe" in shown and "rcl" in shown
    code, _, _ = typed("leaderboard", str(store), "--csv", str(tmp_path / "board.csv"))
    assert code == 0
    assert (tmp_path / "board.csv").read_bytes() == (folder / "leaderboard.csv").read_bytes()


def test_a_terminal_that_lacks_a_character_shows_another(
    typed: Typed, tiny: list[str], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert typed("run", "--loss", "rcl", *tiny, "--out", str(store))[0] == 0
    ascii_only = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.argv", ["usbench", "leaderboard", str(store)])
    monkeypatch.setattr("sys.stdout", ascii_only)
    with pytest.raises(SystemExit) as end:
        cli.main()
    ascii_only.flush()
    assert not end.value.code and b"rcl ? spatial" in ascii_only.buffer.getvalue()


def test_a_saved_config_gives_the_same_plan(typed: Typed, tiny: list[str], tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    flags = ["--out", str(tmp_path / "runs"), "--dry-run"]
    _, first, _ = typed("run", "--loss", "moco:queue=64", *tiny, "--save-config", str(config), *flags)
    _, second, _ = typed("run", "--config", str(config), *flags)
    assert first == second and "moco" in first
    _, third, _ = typed("run", "--config", str(config), "--seed", "5", *flags)
    assert third != second


def test_the_example_of_contributing_is_a_plugin_that_reaches_the_csv(
    typed: Typed, tiny: list[str], store: Path, tmp_path: Path
) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    source = next(block for block in re.findall(r"```python\n(.+?)```", text, re.S) if "my_loss.py" in block)
    (tmp_path / "my_loss.py").write_text(source)
    flags = ["--labels", "100", "--out", str(store)]
    code, out, err = typed("--plugins-dir", str(tmp_path), "run", "--loss", "attract:margin=0.5", *tiny, *flags)
    assert code == 0, err
    table = pd.read_csv(folder_of(out) / "leaderboard.csv")
    assert "attract:margin=0.5" in set(table.loss)


def test_listing_for_programs_names_every_field(typed: Typed) -> None:
    code, out, _ = typed("plugins", "list", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {"rcl", "simclr", "none", "freq", "unet-tiny", "phantom", "segment"} <= {row["name"] for row in rows}
    fields = {"name", "kind", "package", "summary", "reference", "needs", "uses", "reconstruction"}
    assert all(set(row) == fields and row["summary"] for row in rows)
    assert {row["name"] for row in rows if row["reconstruction"]} >= {"rcl", "rcl-image", "freq"}


def test_showing_a_plugin_names_its_paper_and_options(typed: Typed) -> None:
    code, out, _ = typed("plugins", "show", "rcl")
    assert code == 0 and "2502.02489" in out and "dense_weight=" in out and "our reconstruction" in out


def test_a_phantom_is_made_by_name_and_previewed(typed: Typed, tmp_path: Path) -> None:
    code, out, _ = typed("data", "make", "phantom:c5,patients=6,size=64", "-o", str(tmp_path / "c5.h5"))
    assert code == 0 and "6 patients" in out
    assert Pack(tmp_path / "c5.h5").size == 64
    code, _, _ = typed("data", "preview", str(tmp_path / "c5.h5"), "-o", str(tmp_path / "sheet.png"))
    assert code == 0 and (tmp_path / "sheet.png").stat().st_size > 10_000
    views = ["--data", str(tmp_path / "c5.h5"), "-o", str(tmp_path / "views.png"), "--size", "64"]
    code, _, _ = typed("preview", "--aug", "spatial+freq-only", *views)
    assert code == 0 and (tmp_path / "views.png").stat().st_size > 10_000


IMPORTER = """
import numpy as np
from PIL import Image
from usbench import Dataset, Item, hookimpl

class Tiles(Dataset):
    classes = ("benign", "malignant")

    def items(self, path):
        for place, file in enumerate(sorted(path.glob("*.png"))):
            image = np.asarray(Image.open(file).convert("L"))
            yield Item(file.stem, image, mask=image > 128, label=place % 2, patient=file.stem)

@hookimpl
def usbench_datasets(register):
    register("tiles", Tiles, summary="grey tiles")
"""


def test_a_data_set_of_one_s_own_is_imported_by_name(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "tiles.py").write_text(IMPORTER)
    (tmp_path / "tiles").mkdir()
    rng = np.random.default_rng(0)
    for place in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 60), dtype=np.uint8)).save(tmp_path / "tiles" / f"{place}.png")
    command = ["--plugins-dir", str(tmp_path / "plugins"), "data", "import", "tiles", str(tmp_path / "tiles")]
    code, _, err = typed(*command, "--size", "64", "-o", str(tmp_path / "tiles.h5"))
    assert code == 0, err
    pack = Pack(tmp_path / "tiles.h5")
    assert (pack.count, pack.size, pack.name) == (6, 64, "tiles")
    assert pack.table.native_width.eq(60).all() and pack.table.offset_y.eq(10).all()


def test_the_doctor_finds_this_installation_well(typed: Typed) -> None:
    code, out, _ = typed("doctor")
    assert code == 0, out
    assert "torch" in out and "all is well" in out


def test_the_doctor_names_a_pack_that_cannot_be_read(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USBENCH_DATA", str(tmp_path))
    (tmp_path / "zzz.h5").touch()
    code, out, _ = typed("doctor")
    assert code == 1 and "zzz.h5" in out.partition("wrong: ")[2] and "all is well" not in out
