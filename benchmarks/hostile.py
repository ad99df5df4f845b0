"""Damaged files of every kind through the command line: no traceback, no hang, nothing half-written, the file named.

python benchmarks/hostile.py            # 500 damages, a table; exit code 1 where one is not answered well
python benchmarks/hostile.py --count 5000 --seed 1 --show
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))

from kinds import KINDS, Case, make_world, try_case

STUCK = 60  # seconds


def run(count: int, seed: int, only: str, folder: Path, show: bool) -> list[Case]:
    """So many damages, dealt out over the kinds in turn."""
    world = make_world(folder / "good")
    kinds = [kind for kind in KINDS if only in kind.name]
    cases = []
    for number in range(count):
        faulthandler.dump_traceback_later(STUCK, exit=True)  # where not even a signal ends it
        kind = kinds[number % len(kinds)]
        case = try_case(kind, world, folder / f"case-{number}", number // len(kinds), seed)
        cases.append(case)
        if case.faults or show:
            print(f"{case.kind} · {case.damage} · {case.command}\n  {case.code} {case.said[:300]!r}", flush=True)
        if case.faults:
            print(f"  FAULT: {'; '.join(case.faults)}\n{case.trace}", flush=True)
    faulthandler.cancel_dump_traceback_later()
    return cases


def table(cases: list[Case]) -> str:
    """One line a kind: how many damages were refused, found by a check, or did no harm, and the longest time."""
    lines = [f"{'kind':<22} {'damages':>8} {'refused':>8} {'found':>8} {'harmless':>9} {'longest':>8} {'faults':>7}"]
    for kind in dict.fromkeys(case.kind for case in cases):
        some = [case for case in cases if case.kind == kind]
        codes = Counter(case.code for case in some)
        longest, wrong = max(case.seconds for case in some), sum(bool(case.faults) for case in some)
        lines.append(
            f"{kind:<22} {len(some):>8} {codes[2]:>8} {codes[1]:>8} {codes[0]:>9} {longest:>6.1f} s {wrong:>7}"
        )
    wrong = sum(bool(case.faults) for case in cases)
    return "\n".join([*lines, f"{len(cases)} damages, {wrong} not answered well"])


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default="", help="only kinds with this in their names")
    parser.add_argument("--show", action="store_true", help="what was said of each")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        cases = run(given.count, given.seed, given.kind, Path(folder), given.show)
    print(table(cases))
    print(f"{time.monotonic() - started:.0f} s")
    sys.exit(any(case.faults for case in cases))


if __name__ == "__main__":
    main()
