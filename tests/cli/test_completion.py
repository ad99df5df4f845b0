"""What the Tab key offers, by click's own interface and in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from usbench.cli import cli
from usbench.spec import presets


def offered(*words: str) -> list[str]:
    """What is offered for the last word."""
    complete = ShellComplete(cli, {}, "usbench", "_USBENCH_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    ("words", "one"),
    [
        (["ru"], "run"),
        (["run", "--lo"], "--loss"),
        (["run", "--loss", "simc"], "simclr"),
        (["run", "--aug", "fr"], "freq"),
        (["run", "--aug", "spatial+freq-o"], "spatial+freq-only"),
        (["run", "--aug", "blur:p=1+spat"], "blur:p=1+spatial"),
        (["run", "--backbone", "unet-t"], "unet-tiny"),
        (["run", "--protocol", "seg"], "segment"),
        (["run", "--preset", "qu"], "quick"),
        (["run", "--init", "im"], "imagenet"),
        (["run", "--track", "mlflow,ten"], "mlflow,tensorboard"),
        (["suite", "run", "--track", "wan"], "wandb"),
        (["preview", "--aug", "spa"], "spatial"),
        (["plugins", "show", "unet-t"], "unet-tiny"),
        (["data", "import", "busb"], "busbra"),
    ],
)
def test_the_tab_key_offers(words: list[str], one: str) -> None:
    assert one in offered(*words)
    assert all(value.startswith(words[-1]) for value in offered(*words))


def test_data_is_what_can_be_used_at_once(tiny_pack: Path) -> None:
    assert offered("run", "--data", "di") == [tiny_pack.stem]
    assert offered("run", "--data", "discs+pha") == ["discs+phantom"]
    assert "busbra" not in offered("run", "--ood", "")


def test_presets_are_all_offered() -> None:
    assert offered("run", "--preset", "") == list(presets())


def test_an_unknown_command_completes_to_nothing() -> None:
    assert offered("rum", "--loss", "sim") == []


def test_loose_plugins_are_offered_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from usbench import hookimpl\n\n@hookimpl\ndef usbench_losses(register):\n"
        "    register('completable', 'mine:Loss', summary='a loss')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "usbench"], capture_output=True, text=True, timeout=60,
        env={
            **os.environ, "_USBENCH_COMPLETE": "bash_complete", "COMP_CWORD": "5",
            "COMP_WORDS": f"usbench --plugins-dir {tmp_path} run --loss completa",
        },
    )  # fmt: skip
    assert done.stdout == "plain,completable\n", done.stderr


IN_BASH = """
usbench() {{ {python} -m usbench "$@"; }}
eval "$(usbench completion bash)"
COMP_WORDS=(usbench run --aug spatial+freq-); COMP_CWORD=3
_usbench_completion {program}
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_a_real_bash_completes(tmp_path: Path) -> None:
    program = tmp_path / "usbench"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m usbench "$@"\n')
    program.chmod(0o755)
    script = IN_BASH.format(python=sys.executable, program=program)
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["spatial+freq-only"], done.stderr


def test_completing_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['usbench']; from usbench import cli\ntry: cli.main()\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'pandas', 'scipy', 'h5py') if name in sys.modules])"
    for words in ("usbench run --loss sim", "usbench run --data pha"):
        env = {**os.environ, "_USBENCH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "3"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env)
        assert done.stdout.splitlines()[-1] == "[]", done.stderr
        assert len(done.stdout.splitlines()) > 1
