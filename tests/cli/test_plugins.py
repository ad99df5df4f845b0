"""`usbench plugins`: listed, shown with BibTeX, checked, begun; and CONTRIBUTING's tutorial to the letter."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from usbench import conformance
from usbench.hooks import Registry
from usbench.hookspecs import KINDS
from usbench.report.citation import bibtex
from usbench.scaffold import write_package

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
Call = Callable[..., Any]

MUTE = """
from usbench import Loss, hookimpl

class Mute(Loss):
    def objective(self, out, batch):
        return out.features[0].square().mean() + 1

@hookimpl
def usbench_losses(register):
    register("mute", Mute, summary="sees one view", reference="Nobody, 2030, https://example.org")
"""


@pytest.fixture
def mute(tmp_path: Path) -> Path:
    """A folder with a loss that looks at one view only."""
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "mute.py").write_text(MUTE)
    return tmp_path / "loose"


# Shown


@pytest.mark.parametrize(
    ("reference", "lines"),
    [
        (
            "He et al., CVPR 2020, https://arxiv.org/abs/1911.05722",
            ["@misc{he2020,", "  author = {He and others},", "  howpublished = {CVPR},", "  year = {2020},",
             "  eprint = {1911.05722},", "  archiveprefix = {arXiv},",
             "  url = {https://arxiv.org/abs/1911.05722},", "}"],
        ),
        (
            "Ellis et al., arXiv 2502.02489, https://arxiv.org/abs/2502.02489",
            ["@misc{ellis2025,", "  author = {Ellis and others},", "  howpublished = {arXiv 2502.02489},",
             "  year = {2025},", "  eprint = {2502.02489},", "  archiveprefix = {arXiv},",
             "  url = {https://arxiv.org/abs/2502.02489},", "}"],
        ),
        (
            "van den Heuvel et al., PLOS ONE 13, 2018, doi.org/10.1371/journal.pone.0200412",
            ["@misc{heuvel2018,", "  author = {van den Heuvel and others},", "  howpublished = {PLOS ONE 13},",
             "  year = {2018},", "  doi = {10.1371/journal.pone.0200412},",
             "  url = {https://doi.org/10.1371/journal.pone.0200412},", "}"],
        ),
        (
            "speckle: Bamber & Dickinson, Physics in Medicine and Biology 1980",
            ["@misc{bamber1980,", "  author = {Bamber and Dickinson},",
             "  howpublished = {Physics in Medicine and Biology},", "  year = {1980},", "}"],
        ),
    ],
)  # fmt: skip
def test_a_reference_becomes_bibtex(reference: str, lines: list[str]) -> None:
    assert bibtex(reference).splitlines() == lines
    assert bibtex(f"{reference}; {reference}").splitlines() == lines + lines


def test_every_reference_gives_an_author_a_key_and_a_year(installed: Registry) -> None:
    for entry in installed.entries():
        for text in bibtex(entry.reference).split("\n}"):
            found = not text.strip() or re.search(r"@misc\{[a-z]+(19|20)\d\d,\n  author = \{\w", text)
            assert found, (entry.name, text)


def test_showing_a_plugin_ends_with_its_bibtex(usbench: Call) -> None:
    said = usbench("plugins", "show", "freq")
    assert said.code == 0 and "@misc{ellis2025," in said.out and "@misc{yang2020," in said.out
    assert "our reconstruction" in said.out and "band_width=0.05/0.25" in said.out
    assert "@" not in usbench("plugins", "show", "none", "--kind", "loss").out


# Checked


def test_a_kept_promise_is_a_line_and_the_exit_code_0(usbench: Call) -> None:
    said = usbench("plugins", "check", "spatial")
    assert said.code == 0 and "augmentation spatial: 10 promises kept" in said.out
    assert "  kept    It takes an odd size, and a batch of one\n" in said.out and "BROKEN" not in said.out


def test_a_broken_promise_is_a_line_and_the_exit_code_1(usbench: Call, mute: Path) -> None:
    said = usbench("--plugins-dir", mute, "plugins", "check", "mute")
    assert said.code == 1 and not said.err
    (line,) = [line for line in said.out.splitlines() if "Each view matters" in line]
    assert line.startswith("  BROKEN  Each view matters to the loss: view 1 may hold anything: the loss stays 1.")


def test_all_of_a_kind_are_checked_in_a_line_each(usbench: Call, tmp_path: Path) -> None:
    said = usbench("plugins", "check", "--all", "--kind", "augmentation")
    assert said.code == 0 and "BROKEN" not in said.out and "  kept " not in said.out
    assert {line.split(":")[0] for line in said.out.splitlines()} >= {"augmentation spatial", "augmentation freq"}
    (tmp_path / "bad.py").write_text("raise RuntimeError('no licence found')")
    said = usbench("--plugins-dir", tmp_path, "plugins", "check", "--all", "--kind", "dataset")
    assert said.code == 1 and "broken: plugin 'bad' could not be loaded (RuntimeError: no licence found)" in said.out


def test_one_name_in_two_kinds_is_checked_in_both_or_in_the_named_one(usbench: Call) -> None:
    both = usbench("plugins", "check", "none")
    assert "loss none: 1 promises kept" in both.out and "augmentation none:" in both.out
    assert "augmentation" not in usbench("plugins", "check", "none", "--kind", "loss").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "spatail"], "unknown plugin 'spatail': did you mean 'spatial'?"),
        (["check", "spatial", "--kind", "loss"], "unknown loss 'spatial'"),
        (["show", "simcrl"], "unknown plugin 'simcrl': did you mean 'simclr'?"),
        (["check"], "name one plugin, or all with --all"),
        (["check", "spatial", "--all"], "name one plugin, or all with --all"),
        (["check", "--all", "--kind", "losses"], "'losses' is not one of"),
        (["new", "my-loss"], "--kind"),
        (["new", "My_Loss", "--kind", "loss"], "'My_Loss' cannot name a plugin: use lower-case letters"),
        (["new", "2nd", "--kind", "loss"], "'2nd' cannot name a plugin"),
        (["new", "a/b", "--kind", "loss"], "'a/b' cannot name a plugin"),
        (["new", "class", "--kind", "loss"], "'class' would hide a module or a plugin of that name"),
        (["new", "torch", "--kind", "loss"], "'torch' would hide a module"),
        (["new", "rcl", "--kind", "dataset"], "'rcl' would hide a module or a plugin"),
        (["new", "simclr", "--kind", "loss"], "there is a loss 'simclr' already, from plugin 'lightly'"),
    ],
)
def test_bad_input_is_one_sentence(usbench: Call, tmp_path: Path, words: list[str], said: str) -> None:
    place = ["-o", tmp_path] if words[0] == "new" else []
    ended = usbench("plugins", *words, *place)
    assert ended.code == 2 and said in ended.one_sentence()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_alone(usbench: Call, tmp_path: Path) -> None:
    (tmp_path / "my-loss").mkdir()
    ended = usbench("plugins", "new", "my-loss", "--kind", "loss", "-o", tmp_path)
    assert ended.code == 2 and "my-loss is there already: choose another name" in ended.one_sentence()
    assert not list((tmp_path / "my-loss").iterdir())


# Wrong at run time

LOSS = """
import torch
from usbench import Loss, hookimpl

class Mine(Loss):
    def objective(self, out, batch):
        return {body}

@hookimpl
def usbench_losses(register):
    register("mine", Mine, summary="mine")
"""
STEP = """
import numpy as np
from usbench import Augmentation, hookimpl

class Mine(Augmentation):
    def draw(self, rng, boxes, *, local):
        return {draw}

    def forward(self, images, drawn, sector):
        return {body}

@hookimpl
def usbench_augmentations(register):
    register("mine", Mine, summary="mine")
"""
BACKBONE = """
from torch import nn
from usbench import Network, hookimpl

class Encoder(nn.Conv2d):
    def forward(self, images):
        return {maps}

def build():
    return Network(Encoder(1, 4, 3, 2, 1), nn.Upsample(scale_factor=2.0), nn.Conv2d(4, 1, 1), dim={dim}, stride=2)

@hookimpl
def usbench_backbones(register):
    register("mine", build, summary="mine")
"""


PROTOCOL = """
from usbench_segment.protocol import Segment
from usbench import hookimpl

class Mine(Segment):
    def adapt(self, network):
        return {adapt}

    def objective(self, output, batch):
        return {objective}

@hookimpl
def usbench_protocols(register):
    register("mine", Mine, summary="mine", needs=("mask",))
"""


@pytest.mark.parametrize(
    ("flag", "source", "words"),
    [
        ("--loss", LOSS.format(body="torch.tensor(1.0)"), "depends on nothing that is trained, so it has no gradient"),
        ("--loss", LOSS.format(body="out.features[0].mean() * float('nan')"), "became nan at step 0"),
        ("--loss", LOSS.format(body="out.features[0]"), "the part 'loss' of the loss is (8, 96), not a scalar tensor"),
        ("--loss", LOSS.format(body="{'a': None}"), "the part 'a' of the loss is NoneType, not a scalar tensor"),
        ("--aug", STEP.format(draw="{}", body="images[..., ::2]"), "step Mine made (16, 1, 32, 16) of images of (16"),
        ("--aug", STEP.format(draw="{}", body="None"), "step Mine made a NoneType of images of (16, 1, 32, 32)"),
        ("--aug", STEP.format(draw="{}", body="images * float('nan')"), "no weight has moved yet, so look at the loss"),
        ("--aug", STEP.format(draw="{'g': np.ones(3)}", body="images"), "step Mine drew 'g' of (3,) for 16 views"),
        ("--aug", STEP.format(draw="{'affine': np.eye(3)}", body="images"), "drew 'affine' of (3, 3) for 16 views"),
        ("--aug", STEP.format(draw="{'g': [1.0] * 16}", body="images"), "drew 'g' of type list for 16 views"),
        ("--aug", STEP.format(draw="{'affine': np.ones((16, 2, 3))}", body="images"), "drew an 'affine' of (16, 2, 3)"),
        ("--aug", STEP.format(draw="None", body="images"), "step Mine drew a NoneType for 16 views"),
        ("--backbone", BACKBONE.format(maps="super().forward(images)", dim=4), "must give a list of maps"),
        ("--protocol", PROTOCOL.format(objective="output", adapt="network"), "is (4, 1, 32, 32), not a scalar tensor"),
        ("--protocol", PROTOCOL.format(objective="{}", adapt="network"), "the protocol is dict, not a scalar tensor"),
        ("--protocol", PROTOCOL.format(objective="0", adapt="None"), "(of what protocol 'mine' or backbone 'unet-"),
        (
            "--backbone",
            BACKBONE.format(maps="[super().forward(images)]", dim=5),
            "says dim=5, and its deepest map has 4",
        ),
    ],
    ids=range(17),
)
def test_a_plugin_that_gives_something_else_ends_a_run_in_one_sentence(
    usbench: Call, tiny: list[str], tmp_path: Path, flag: str, source: str, words: str
) -> None:
    (tmp_path / "mine.py").write_text(source)
    asked = ["--loss", "simclr", *tiny, flag, "mine", "--out", tmp_path / "r", "--fail-fast"]
    said = usbench("--plugins-dir", tmp_path, "run", *asked)
    assert said.code in (1, 2) and words in said.one_sentence()
    done = [path.name for path in (tmp_path / "r").glob("stages/*") if not path.name.endswith(".part")]
    assert not [name for name in done if ("finetune" if flag == "--protocol" else "pretrain") in name]


# Begun


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_of_any_kind_keeps_its_promises_untouched(
    bare: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = write_package(f"fresh-{kind}", kind, tmp_path)
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    module = project["project"]["entry-points"]["usbench"][f"fresh-{kind}"]
    assert project["project"]["name"] == f"fresh-{kind}" and project["tool"]["hatch"]
    monkeypatch.syspath_prepend(folder)
    bare.add(importlib.import_module(module), f"fresh-{kind}")
    (entry,) = bare.entries()
    assert (entry.kind, entry.name) == (kind, f"fresh-{kind}") and isinstance(entry.factory, str)
    assert [f"{v.promise}: {v.note}" for v in conformance.check(entry) if not v.kept] == []
    assert f'registry().get("{kind}", "fresh-{kind}")' in (folder / "tests" / f"test_{module}.py").read_text("utf-8")
    assert not [file for file in folder.rglob("*") if file.is_file() and "$" in file.read_text("utf-8")]


def blocks(language: str) -> list[str]:
    """The fenced blocks of CONTRIBUTING in a language; "" for commands."""
    return [body for of, body in re.findall(r"^```(\w*)\n(.+?)^```$", CONTRIBUTING, re.S | re.M) if of == language]


def test_the_loose_file_of_contributing_keeps_its_promises(usbench: Call, tmp_path: Path) -> None:
    (source,) = [block for block in blocks("python") if block.startswith("# my_loss.py")]
    (tmp_path / "my_loss.py").write_text(source)
    said = usbench("--plugins-dir", tmp_path, "plugins", "check", "attract")
    assert said.code == 0, said.out


@pytest.mark.parametrize(("kind", "name"), [("backbone", "two-maps"), ("protocol", "overlap")])
def test_the_small_examples_of_contributing_keep_their_promises_and_reach_a_table(
    usbench: Call, tiny: list[str], tmp_path: Path, kind: str, name: str
) -> None:
    (source,) = [block for block in blocks("python") if block.startswith(f"# my_{kind}.py")]
    (tmp_path / "mine.py").write_text(source)
    said = usbench("--plugins-dir", tmp_path, "plugins", "check", name)
    assert said.code == 0, said.out
    ran = usbench(
        "--plugins-dir", tmp_path, "run", "--loss", "simclr", *tiny, "--labels", "100", f"--{kind}", name,
        "--out", tmp_path / "r",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (board,) = (tmp_path / "r").glob("*/leaderboard.csv")
    table = pd.read_csv(board)
    assert "simclr" in set(table.loss) and (kind == "backbone" or "overlap_mean" in table.columns)


def test_the_step_of_contributing_keeps_the_promises_of_a_loss(usbench: Call, tmp_path: Path) -> None:
    (source,) = [block for block in blocks("python") if block.startswith("# my_loss.py")]
    (step,) = [block for block in blocks("python") if block.startswith("def step(")]
    whole = source.replace("\n\n\n@hookimpl", f"\n\n{textwrap.indent(step, '    ')}\n\n@hookimpl")
    (tmp_path / "my_loss.py").write_text(whole)
    said = usbench("--plugins-dir", tmp_path, "plugins", "check", "attract")
    assert said.code == 0 and "def step" in whole, said.out


def test_coordinates_are_as_contributing_says() -> None:
    """x first, from -1 to 1 over the sides, as torch's grids have them; `between` leads from a view to another."""
    import torch
    from torch.nn import functional

    from usbench.views import affine, between, resample

    image = torch.rand(2, 1, 8, 8)
    turned = affine(
        np.array([[0.3, -0.1]] * 2), np.array([[0.5, 0.4]] * 2), np.array([20.0] * 2), np.array([True, False])
    )
    one = torch.from_numpy(turned[:, :2])
    grid = functional.affine_grid(one, [2, 1, 8, 8], align_corners=False)
    assert torch.allclose(resample(image, one, 8), functional.grid_sample(image, grid, align_corners=False), atol=1e-5)
    other = torch.eye(3)[:2].repeat(2, 1, 1) * 0.5
    there = between(one, other)
    at = torch.tensor([0.2, 0.6, 1.0])
    assert there.shape == (2, 2, 3) and torch.allclose((there @ at) * 0.5, one @ at, atol=1e-5)


def test_the_tutorial_shows_the_files_as_they_are_written(tmp_path: Path) -> None:
    folder = write_package("my-loss", "loss", tmp_path)
    for file in ("my_loss/__init__.py", "my_loss/loss.py"):
        assert (folder / file).read_text("utf-8") in blocks("python"), file
    assert any(block in (folder / "pyproject.toml").read_text("utf-8") for block in blocks("toml"))


def test_the_tutorial_followed_to_the_letter_ends_on_a_leaderboard(tmp_path: Path) -> None:
    """Written, installed with pip, listed, checked, run. pip is told by its environment to ask no network."""
    site = tmp_path / "site"
    environment = {
        **os.environ, "PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "USBENCH_DATA": str(tmp_path / "data"),
        "PIP_TARGET": str(site), "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "COLUMNS": "200",
    }  # fmt: skip
    (commands,) = [block.splitlines() for block in blocks("") if block.startswith("usbench plugins new")]
    said = []
    for command in commands:
        program, *words = shlex.split(command)
        done = subprocess.run(
            [sys.executable, "-m", program, *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    _, _, listed, checked, ran = said
    assert "  my-loss" in listed and "broken:" not in listed
    assert "loss my-loss: 19 promises kept" in checked
    (board,) = (tmp_path / "runs").glob("*/leaderboard.csv")
    assert "my-loss" in set(pd.read_csv(board).loss) and "my-loss" in ran
