"""A script that calls `usbench.run` with several workers and no guard is run once."""

from __future__ import annotations

import json
import os
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
print(result.computed, flush=True)
"""


def test_workers_do_not_begin_the_script_anew(asked: dict[str, Any], finished: Result, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    given = {**asked, "workers": 2, "out": str(tmp_path / "runs")}
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(given)], capture_output=True, text=True, timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["begun", str(len(finished.titles))]
    table = usbench.leaderboard(tmp_path / "runs").drop(columns=list(NOT_MEASURED))
    assert table.equals(finished.leaderboard.drop(columns=list(NOT_MEASURED)))


def test_plugins_that_were_handed_over_as_objects_stay_in_this_process(installed: Registry) -> None:
    class Mine:
        pass

    assert installed.travels
    installed.add(Mine(), "mine")
    assert not installed.travels
