"""A suite on a SLURM cluster: jobs of one GPU each, and this program on the login node, which gives them stages.

    pip install "usbench[cluster]"
    python benchmarks/slurm/suite.py benchmarks/leaderboard.toml --out /shared/runs --jobs 8 --partition gpu
    python benchmarks/slurm/suite.py … --show      # the job script, and nothing else

The store, the packs (USBENCH_DATA) and the plugins must lie in folders that all machines share under the same names.
Nothing is lost when jobs are preempted, when they end, or when this program is stopped: the same command goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

SAVES = 30  # seconds before its end that a job is told to save: ten are enough


def cluster(asked: argparse.Namespace) -> Any:
    """A cluster whose jobs do one stage at a time."""
    from dask_jobqueue import SLURMCluster

    return SLURMCluster(
        queue=asked.partition, account=asked.account, walltime=asked.time,
        cores=1, processes=1, job_cpu=asked.cpus, memory=asked.memory,
        job_extra_directives=[*([f"--gres={asked.gres}"] if asked.gres else []), f"--signal=TERM@{SAVES}", "--requeue"],
        worker_extra_args=["--preload", "usbench.runs.hand", "--memory-limit", "0", "--no-dashboard"],
        job_script_prologue=[f"export OMP_NUM_THREADS={asked.cpus}", *asked.prologue],
        python=f"srun --ntasks=1 --cpus-per-task={asked.cpus} {sys.executable}",  # signals reach what srun started
        interface=asked.interface, log_directory=str(asked.out / "slurm"),
        scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    )  # fmt: skip


def main(words: list[str] | None = None) -> int:
    """Start the jobs and the suite; or show the job script."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="the suite")
    parser.add_argument("--out", type=Path, required=True, help="the store, in a folder that all machines share")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--time", default="08:00:00")
    parser.add_argument("--gres", default="gpu:1", help="empty for jobs without a GPU")
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--memory", default="32GB")
    parser.add_argument("--interface", help="the network that all machines share, for example ib0")
    parser.add_argument("--prologue", action="append", default=[], help="a line of the job script, as 'module load …'")
    parser.add_argument("--show", action="store_true", help="print the job script and stop")
    asked = parser.parse_args(words)
    with cluster(asked) as jobs:
        if asked.show:
            print(jobs.job_script())
            return 0
        jobs.scale(jobs=asked.jobs)
        command = [sys.executable, "-m", "usbench", "suite", "run", str(asked.file), "--out", str(asked.out)]
        return subprocess.run(
            [*command, "--engine", "dask", "--scheduler", jobs.scheduler_address], check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
