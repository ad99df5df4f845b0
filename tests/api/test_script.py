"""A script that calls `usbench.run` with several workers and no guard is run once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import usbench
from usbench import Result
from usbench.hooks import Registry
from usbench.report.columns import NOT_MEASURED

SCRIPT = """
import json, sys
print("begun", flush=True)
import usbench
assert "torch" not in sys.modules
result = usbench.run(**json.loads(sys.argv[1]))
print(result.computed, "pytorch_lightning" in sys.modules, flush=True)
"""


def test_workers_do_not_begin_the_script_anew_and_without_a_tracker_there_is_none(
    asked: dict[str, Any], finished: Result, store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(store, out, ignore=shutil.ignore_patterns("track"))
    missing = [stage for stage in finished.titles if stage.startswith("evaluate")][:2]
    for stage in missing:
        shutil.rmtree(out / "stages" / stage)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), json.dumps({**asked, "workers": 2, "out": str(out)})],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["begun", str(len(missing)), "False"]
    table = usbench.leaderboard(out).drop(columns=list(NOT_MEASURED))
    assert table.equals(finished.leaderboard.drop(columns=list(NOT_MEASURED)))
    assert not list(out.glob("*/track"))


def test_plugins_that_were_handed_over_as_objects_stay_in_this_process(installed: Registry) -> None:
    class Mine:
        pass

    assert installed.travels
    installed.add(Mine(), "mine")
    assert not installed.travels
