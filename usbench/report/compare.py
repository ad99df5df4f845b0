"""Two rows side by side: their paired difference, or the first field in which they must not differ and do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from usbench.errors import UsbenchError, listed, unknown
from usbench.evaluate.statistics import Estimate, crossed_interval, signed_rank
from usbench.report.cells import Cell, processors_of, shared_seeds
from usbench.report.differences import difference
from usbench.report.nearest import runs_meant
from usbench.report.summary import read_summary
from usbench.runs.store import Store

MOST_DIFFERENT = 10
# What rows of one arena share and tables show, in the order in which a difference is named.
FIELDS = (
    "test_data", "train_data", "fold", "label_fraction", "shift", "backbone", "init", "size", "protocol", "device",
    "precision", "threads",
)  # fmt: skip
OF_SEED = ("seed", "labelled", "inner", "pretrained")


@dataclass(frozen=True)
class Comparison:
    """One row less another, image by image, over the seeds that both have."""

    first: Cell
    second: Cell
    seeds: list[int]
    estimate: Estimate
    signed_rank: float
    images: list[tuple[str, float, float]]  # the most different: name, and both scores


def find(text: str, every: Sequence[Cell], stores: Sequence[Store]) -> list[Cell]:
    """The rows that a user names by a key, the beginning of one, or a run's folder (its own rows, no baselines)."""
    folder = Path(text)
    if (folder / "run.json").is_file():
        tested = {r.folder.name for c in read_summary(folder, Store(folder.resolve().parent)).cells for r in c.results}
        own = [(c, {part.folder.name in tested for r in c.results for part in r.each}) for c in every]
        cells = [c for c, found in own if found == {True}] or [c for c, found in own if True in found]
        return [c for c in cells if not c.row["baseline"]] or [c for c in cells if c.row["baseline"] == "plain"]
    cells = [cell for cell in every if text and cell.row["setting"].startswith(text)]
    if len(several := dict.fromkeys(cell.row["setting"] for cell in cells)) > 1:
        keys = listed(several)
        raise UsbenchError(f"'{text}' begins the keys of several rows ({keys}): give more of it.")
    if not cells:
        where = f"in {', '.join(store.name for store in stores)}"
        if near := runs_meant(text, [store.root for store in stores]):
            raise UsbenchError(f"unknown row '{text}' {where}: did you mean the run {near}?")
        raise unknown("row", text, [cell.row["setting"] for cell in every], where=where)
    return cells


def compare(first: Sequence[Cell], second: Sequence[Cell]) -> list[Comparison]:
    """Each pair that stands in one arena, or would but for its starting weights; else the nearest pair says why."""
    possible = [(a, b) for a in first for b in second if a is not b]
    pairs = [(a, b) for a, b in possible if _standing(a) == _standing(b)]
    pairs.sort(key=lambda pair: (len(shared_seeds(pair)), not pair[0].row.get("chosen")))
    pairs = list({(a.row["setting"], b.row["setting"]): (a, b) for a, b in pairs}.values())  # the last of each
    pairs = pairs or [(a, b) for a, b in possible if _starts_differ(a, b)]
    if not pairs:
        a, b = max(((a, b) for a in first for b in second), key=lambda pair: _likeness(*pair))
        if a is b:
            raise UsbenchError(f"{a.row['setting']} is one row: name two.")
        raise UsbenchError(f"{_called(a)} and {_called(b)} cannot stand in one table: {difference_of(a, b)}.")
    for a, b in pairs:
        if not a.row["baseline"] and not b.row["baseline"] and (what := _unfair(a, b)):
            raise UsbenchError(f"{_called(a)} and {_called(b)} cannot stand in one table: {what}.")
    return [_compared(a, b) for a, b in pairs]


def _standing(cell: Cell) -> tuple[str, str]:
    return cell.row["arena"], cell.primary


def _likeness(first: Cell, second: Cell) -> int:
    return sum(first.row.get(name) == second.row.get(name) for name in FIELDS)


def _called(cell: Cell) -> str:
    return f"'{cell.row['loss']}' ({cell.row['setting'][:8]})"


def difference_of(first: Cell, second: Cell) -> str:
    """The first field in which two rows of other arenas differ, in words."""
    return next((words for _, words in _apart(first, second)), "the list of training images is another one")


def _apart(first: Cell, second: Cell) -> Iterator[tuple[str, str]]:
    """Every field in which two rows of other arenas are known to differ, and the same in words."""
    for name in FIELDS:
        if (mine := first.row.get(name)) != (theirs := second.row.get(name)):
            yield name, f"{name} is {mine} and {theirs}"
    if len(asked := [cell for cell in (first, second) if not cell.row.get("chosen")]) == 1:
        yield "chosen", f"only {_called(asked[0])} was not chosen among trials"
    if first.primary != second.primary:
        yield "primary", f"the primary metric is {first.primary} and {second.primary}"
    tuned = [_identity(cell, "finetune", cell.results[0].finetuned) for cell in (first, second)]
    longer = any(cell.row["baseline"] == "long" for cell in (first, second))  # by declaration
    for name, mine, theirs in _differing(tuned[0], tuned[1]):
        if name not in OF_SEED and not (longer and name == "schedule.steps"):
            yield name, f"the fine-tune's {name} is {mine} and {theirs}"
    tested = [_identity(cell, "evaluate", cell.results[0].folder.name.partition("-")[2]) for cell in (first, second)]
    for name, mine, theirs in _differing(tested[0], tested[1]):
        if name == "images":
            yield name, f"the list of test images is another one ({mine} and {theirs})"


def _starts_differ(first: Cell, second: Cell) -> bool:
    """Whether they learned from the same labelled images and would stand in one arena, were it not for the start."""
    differ = False
    for name, _ in _apart(first, second):  # fields of tables first, before a record is read
        if name != "init":
            return False
        differ = True
    of_seed = [{int(r.row["seed"]): _identity(c, "finetune", r.finetuned) for r in c.results} for c in (first, second)]
    shared = of_seed[0].keys() & of_seed[1].keys()
    lists = [[tuned[seed].get(name) for seed in shared for name in ("labelled", "inner")] for tuned in of_seed]
    known = shared and all(tuned[seed] for tuned in of_seed for seed in shared)
    return differ and bool(known) and lists[0] == lists[1]


def _unfair(first: Cell, second: Cell) -> str:
    """In what two pretrainings differ that do not rank together."""
    if first.row["shift"] != second.row["shift"]:
        return f"shift is {first.row['shift']} and {second.row['shift']}"
    if first.labels != second.labels:
        return f"their pretrainings saw other labels: {first.labels} and {second.labels}"
    if bool(first.row.get("leaks")) != bool(second.row.get("leaks")):
        return "only one of them was let pass with near-duplicates of tested images (--allow-leaks)"
    return "" if first.results[0].budget == second.results[0].budget else _budget_words(first, second)


def _budget_words(first: Cell, second: Cell) -> str:
    budgets = [cell.results[0].budget or (0, 0) for cell in (first, second)]
    for name, mine, theirs in zip(("steps", "images a batch"), *budgets, strict=True):
        if mine != theirs:
            return f"the pretraining's {name} are {mine} and {theirs}"
    return "one was pretrained and the other was not"


def _identity(cell: Cell, kind: str, key: str) -> dict[str, Any]:
    store = Store(cell.results[0].folder.parent.parent)
    try:
        return dict(store.record(f"{kind}-{key}")["identity"])
    except (UsbenchError, KeyError, TypeError):
        return {}


def _differing(first: Mapping[str, Any], second: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every leaf in which two identities differ."""
    for name in dict.fromkeys([*first, *second]):
        mine, theirs = first.get(name), second.get(name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            yield from _differing(mine, theirs, f"{at}{name}.")
        elif mine != theirs:
            yield f"{at}{name}", mine, theirs


def _compared(first: Cell, second: Cell) -> Comparison:
    seeds = sorted(set(first.seeds) & set(second.seeds))
    if not seeds:
        has = [", ".join(map(str, cell.seeds)) for cell in (first, second)]
        raise UsbenchError(
            f"{_called(first)} has seeds {has[0]} and {_called(second)} has {has[1]}: run one of them with a seed of "
            "the other."
        )
    estimate = difference(first, second)  # checks that the images are the same
    mine, theirs = first.values(seeds), second.values(seeds)
    means = mine.mean(axis=1), theirs.mean(axis=1)
    apart = np.abs(means[0] - means[1])
    order = np.argsort(-np.where(np.isnan(apart), -1, apart), kind="stable")[:MOST_DIFFERENT]
    images = [
        (str(first.scores.names[i]), float(means[0][i]), float(means[1][i])) for i in order if apart[i] == apart[i]
    ]
    p = signed_rank(mine - theirs, first.scores.groups) if len(mine) and len(seeds) > 1 else math.nan
    return Comparison(first, second, seeds, estimate, p, images)


def mean_over(cell: Cell, seeds: Sequence[int]) -> Estimate:
    """The mean of the shared seeds."""
    return crossed_interval(cell.values(seeds), cell.scores.groups, strata=cell.strata, share=True)


def notes(found: Sequence[Comparison]) -> list[str]:
    """What a reader must know of the two rows beside their difference."""
    said = []
    first, second = found[0].first, found[0].second
    if first.row["arena"] != second.row["arena"]:
        starts = [f"{cell.row['loss']} from {cell.row['init']}" for cell in (first, second)]
        said.append(f"Their starting weights differ ({' and '.join(starts)}): tables rank them apart.")
    if (labels := (first.labels, second.labels))[0] != labels[1]:
        said.append(f"Their pretrainings saw other labels: {labels[0]} and {labels[1]}; they rank apart.")
    if (shifts := (first.row["shift"], second.row["shift"]))[0] != shifts[1]:
        said.append(f"Their shifts differ: {shifts[0]} and {shifts[1]}.")
    if (leaks := [int(cell.row.get("leaks") or 0) for cell in (first, second)])[0] != leaks[1]:
        said.append(f"Near-duplicates of tested images that were let pass: {leaks[0]} and {leaks[1]}.")
    versions = [cell.results[0].versions for cell in (first, second)]
    if other := [f"{library} {a} and {b}" for library, a, b in _differing(versions[0], versions[1]) if a and b]:
        said.append(f"They were made with other versions: {', '.join(other)}.")
    processors = [processors_of([cell]) for cell in (first, second)]
    if all(processors) and processors[0] != processors[1]:
        names = " and ".join("; ".join(some) for some in processors)
        said.append(f"Their processors differ ({names}): equal seeds pair nothing, and rounding alone moves scores.")
    if len(found[0].seeds) == 1:
        said.append("One shared seed: the interval is over patients only, and no test is made.")
    else:
        said.append("The signed-rank p averages the seeds away; the interval and its p do not.")
    return said
