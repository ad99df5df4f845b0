"""What most tests need: small packs, a tiny run, a registry of one's own, and the command line in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from usbench import hooks
from usbench.data.packing import write_pack
from usbench.hooks import Registry
from usbench.items import Item

CLASSES = ("benign", "malignant", "normal")
SIZE = 64


def scans(patients: int = 20, *, size: int = SIZE, seed: int = 0, background: float = 120.0) -> Iterator[Item]:
    """Two images a patient: speckle with a dark disc, exactly masked. Every fifth patient is normal; every fourth
    patient's two images are frames of one video."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    for patient in range(patients):
        normal = patient % 5 == 4
        label = 2 if normal else patient % 2
        filmed = patient % 4 == 0
        for shot in range(2):
            radius = size * rng.uniform(0.1, 0.25)
            middle = rng.uniform(0.35, 0.65, 2) * size
            mask = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius**2
            mask &= not normal
            speckle = rng.rayleigh(background / 1.25, (size, size))
            image = np.where(mask, 0.35 * speckle, speckle).clip(0, 255).astype(np.uint8)
            yield Item(
                name=f"p{patient:03d}-{shot}", image=image, mask=mask, label=label, patient=f"p{patient:03d}",
                tag="breast", device="test", video=f"v{patient:03d}" if filmed else "",
                frame=shot if filmed else -1, time=shot / 10 if filmed else float("nan"),
                fps=10.0 if filmed else float("nan"), pixel_mm=0.2,
            )  # fmt: skip


def pack_of(path: Path, items: Iterator[Item], *, name: str, size: int = SIZE, **attributes: str) -> Path:
    """Write the items as a pack that says where it comes from."""
    said = {"source": "tests", "licence": "none", "citation": "none", "importer": "tests:scans", "version": "1"}
    write_pack(path, items, size=size, classes=CLASSES, attributes={"dataset": name, **said, **attributes})
    return path


@pytest.fixture(scope="session")
def make_scans() -> Callable[..., Iterator[Item]]:
    """`make_scans(patients, size=…, seed=…)` → items with disc lesions."""
    return scans


@pytest.fixture(scope="session")
def make_pack() -> Callable[..., Path]:
    """`make_pack(path, items, name=…)` → the path of a written pack."""
    return pack_of


@pytest.fixture(scope="session", autouse=True)
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data home of all tests, so that none reads or writes the user's; nor the user's plugins."""
    home = tmp_path_factory.mktemp("data-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USBENCH_DATA", str(home))
        patch.delenv("USBENCH_PLUGINS", raising=False)
        patch.delenv("USBENCH_PLUGINS_DIR", raising=False)
        yield home


@pytest.fixture(scope="session")
def tiny_pack(data_home: Path) -> Path:
    """40 images of 20 patients, 64 px, annotated and labelled, some of them video frames."""
    return pack_of(data_home / "discs.h5", scans(), name="discs")


@pytest.fixture(scope="session")
def tiny_target(data_home: Path) -> Path:
    """A second set, brighter, to test on only."""
    return pack_of(data_home / "bright.h5", scans(8, seed=1, background=180.0), name="bright")


@pytest.fixture(scope="session")
def tiny_settings(tiny_pack: Path, tiny_target: Path) -> dict[str, Any]:
    """What `usbench.spec.resolve` takes for a run of a few seconds; add a loss."""
    return {
        "aug": "spatial", "backbone": "unet-tiny", "size": 32, "labels": [50, 100], "device": "cpu",
        "precision": "float32", "threads": 1, "data": [str(tiny_pack)], "ood": [str(tiny_target)],
        "pretrain": {"steps": 4, "batch": 8}, "finetune": {"steps": 4, "batch": 4},
    }  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tiny_pack: Path, tiny_target: Path) -> list[str]:
    """The same as arguments of `usbench run`; add --loss and --out."""
    words = "--aug spatial --backbone unet-tiny --size 32 --labels 50,100 --device cpu --precision float32 --threads 1"
    steps = "--set pretrain.steps=4 --set pretrain.batch=8 --set finetune.steps=4 --set finetune.batch=4"
    return [*words.split(), *steps.split(), "--data", str(tiny_pack), "--ood", str(tiny_target)]


@pytest.fixture(scope="session")
def quiet() -> Any:
    """An observer of a run that says nothing, and never asks it to stop."""
    return SimpleNamespace(
        stopping=False, **dict.fromkeys(("begin", "step", "end", "fail", "wait"), lambda *facts: None)
    )


@pytest.fixture
def bare() -> Registry:
    """A registry in which nothing is registered."""
    return Registry()


@pytest.fixture
def installed() -> Registry:
    """A registry of its own with all installed plugins."""
    registry = Registry()
    registry.load_entry_points()
    return registry


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch's, so that small tests do not wait for one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    def one_sentence(self) -> str:
        """The error, which must be one line on stderr, say who speaks, end as a sentence, and show no traceback."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("usbench: "), self.err
        assert lines[0].endswith((".", "?", ")")), self.err
        assert "Traceback" not in self.out + self.err and "unexpected" not in lines[0], self.err
        return lines[0]


@pytest.fixture
def usbench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Said]]:
    """`usbench("run", "--loss", …)` → how it ended. The stages are done in this process, by one worker."""
    from usbench import cli
    from usbench.runs import plan

    monkeypatch.setattr(plan, "available_cores", lambda: 1)
    monkeypatch.setenv("COLUMNS", "160")

    def call(*words: object) -> Said:
        hooks.registry.cache_clear()  # --plugins-dir adds to the process's registry
        monkeypatch.setattr("sys.argv", ["usbench", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return Said(int(end.value.code or 0), said.out, said.err)

    yield call
    hooks.registry.cache_clear()


@pytest.fixture
def suite_file(tmp_path: Path, tiny_settings: dict[str, Any]) -> Callable[[str], Path]:
    """`suite_file("[[runs]] …")` → a suite over the settings of a run of seconds."""

    def write(runs: str) -> Path:
        lines = [f"{key} = {json.dumps(v)}" for key, v in tiny_settings.items() if not isinstance(v, dict)]
        tables = [
            f"[base.{key}]\n" + "\n".join(f"{k} = {v}" for k, v in value.items())
            for key, value in tiny_settings.items()
            if isinstance(value, dict)
        ]
        (tmp_path / "s.toml").write_text("name = 'tiny'\n[base]\n" + "\n".join([*lines, *tables]) + "\n" + runs)
        return tmp_path / "s.toml"

    return write
