"""What every registered loss makes of an encoder, against one that was never trained: two linear read-outs of lesions.

    python benchmarks/probe.py --out runs/probe --csv results/probe/probe.csv [--losses simclr,rcl] [--seeds 3]

Each loss pretrains on phantom:l7 (stills and cine clips) for 200 steps of the quick preset. The encoder is then
frozen, and its BatchNorm statistics are recomputed on clean training images. From the pooled features a ridge
regression, fitted to 300 other patients, reads which share of the image is lesion (R²); from each cell of the deepest
map a logistic regression, fitted to the training images, reads lesion or not (the area under the ROC curve within
each image). Both are judged on 300 more patients of the same scanner, as the paired difference to the untrained
encoder of the same seed, over patients crossed with seeds.
Trainings stay in the store, so that the same command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from usbench.api.progress import Display
from usbench.contracts import Network
from usbench.data.feed import Feed
from usbench.data.home import find_pack
from usbench.data.splits import fold_split
from usbench.evaluate.probe import (
    area_model,
    area_skill,
    cell_features,
    cell_lesions,
    clean_statistics,
    image_features,
    lesion_auc,
    lesion_share,
    linear_model,
)
from usbench.evaluate.statistics import crossed_interval
from usbench.hooks import Entry, registry
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.stage import Plan, Stage
from usbench.runs.store import Store
from usbench.spec import Choice, resolve
from usbench.train import checkpoint
from usbench.train.loop import Compute
from usbench.train.networks import build_network

TEST = "phantom:l7,patients=300,seed=1"
READ = "phantom:l7,patients=300,seed=2"
TOKENS = "vit-tiny:dim=64,depth=4"
STEPS = 200
READOUTS = {"area": "R²", "cells": "AUC"}


def backbone_of(entry: Entry) -> str:
    return TOKENS if "tokens" in entry.needs else "unet-tiny"


def planned(names: list[str], seeds: int, display: Display) -> dict[tuple[str, int], Stage]:
    """The pretraining of each loss and seed."""
    stages = {}
    for name in names:
        given = {"loss": name, "backbone": backbone_of(registry().get("loss", name)), "seeds": list(range(seeds))}
        given |= {"pretrain": {"steps": STEPS}}
        plan = make_plan(registry(), resolve({**given, "labels": [100], "ood": []}), display.making)
        stages |= {(name, s.identity["seed"]): s for s in plan.stages if s.kind == "pretrain"}
    return stages


class Probe:
    """Train and test images, and the read-outs of a network."""

    def __init__(self, display: Display, size: int) -> None:
        packs = [find_pack(registry(), text, display.making) for text in ("phantom:l7", READ, TEST)]
        self.compute = Compute(torch.device("cpu"), "float32")
        rows = [fold_split(packs[0], 0)[0], *(np.arange(pack.count) for pack in packs[1:])]
        self.train, self.read, self.test = (
            Feed([part], size, self.compute.device, masks=True) for part in zip(packs, rows, strict=True)
        )
        self.lesions = [cell_lesions(feed) for feed in (self.train, self.test)]
        self.shares = [lesion_share(feed) for feed in (self.read, self.test)]
        self.groups = packs[2].table.group.to_numpy()

    def __call__(self, network: Network) -> dict[str, np.ndarray]:
        """The score of each test image, by read-out."""
        clean_statistics(network, self.train, self.compute)
        own, other = (image_features(network, feed, self.compute) for feed in (self.read, self.test))
        area = area_skill(other, self.shares[1], area_model(own, self.shares[0]))
        own, other = (cell_features(network, feed, self.compute) for feed in (self.train, self.test))
        model = linear_model(own.reshape(-1, own.shape[-1]), self.lesions[0].reshape(-1))
        return {"area": area, "cells": lesion_auc(other, self.lesions[1], model)}


def seeds_of(found: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """(images, seeds) of each read-out."""
    return {name: np.stack([of[name] for of in found], 1) for name in READOUTS}


def network_of(backbone: str, size: int, seed: int) -> Network:
    choice = Choice.parse(backbone)
    entry = registry().get("backbone", choice.name)
    return build_network(entry, entry.parse(choice.options), size, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--losses")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    names = [e.name for e in registry().entries("loss") if e.factory is not None]
    names = given.losses.split(",") if given.losses else names
    console, store = Console(), Store(given.out)
    store.open()
    with Display(console) as display:
        stages = planned(names, given.seeds, display)
        spec = resolve({"loss": names[0]})
        run_plan(Plan(spec, list(stages.values()), []), store, registry(), display, workers=2)
        probe = Probe(display, spec.size)
    torch.set_num_threads(1)
    bases: dict[str, dict[str, np.ndarray]] = {}
    rows = []
    for name in names:
        entry = registry().get("loss", name)
        backbone = backbone_of(entry)
        if backbone not in bases:
            bases[backbone] = seeds_of([probe(network_of(backbone, spec.size, seed)) for seed in range(given.seeds)])
        found, facts = [], []
        for seed in range(given.seeds):
            stage = stages[name, seed]
            network = network_of(backbone, spec.size, seed)
            weights, _ = checkpoint.read(store.folder(stage.id) / "weights.safetensors")
            network.load_state_dict(weights, strict=False)
            found.append(probe(network))
            facts.append(store.record(stage.id)["facts"])
        row = {"loss": name, "backbone": backbone}
        for what, values in seeds_of(found).items():
            more = crossed_interval(values - bases[backbone][what], probe.groups)
            row |= {what: np.nanmean(values), f"{what}_difference": more.mean, f"{what}_low": more.low,
                    f"{what}_high": more.high}  # fmt: skip
        for what in ("spread", "rankme", "device_seconds"):
            row[what] = np.mean([of[what] for of in facts])
        rows.append({**row, "pretrain_labels": facts[0]["pretrain_labels"], "reconstruction": entry.reconstruction})
        console.print(name, *(_difference(rows[-1], what) for what in READOUTS), highlight=False)
    show(console, pd.DataFrame(rows).sort_values("area_difference", ascending=False), bases)
    if given.csv:
        given.csv.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(given.csv, index=False, float_format="%.4f")


def _difference(row: dict, what: str) -> str:
    low, high = row[f"{what}_low"], row[f"{what}_high"]
    return f"{row[f'{what}_difference']:+.3f} [{low:+.3f}, {high:+.3f}]"


def show(console: Console, table: pd.DataFrame, bases: dict[str, dict[str, np.ndarray]]) -> None:
    columns = [text for what, unit in READOUTS.items() for text in (f"{what}, {unit}", "to untrained [95 %]")]
    shown = Table("loss", *columns, "spread", "RankMe", "s")
    for row in table.to_dict("records"):
        cells = [text for what in READOUTS for text in (f"{row[what]:.3f}", _difference(row, what))]
        shown.add_row(
            row["loss"], *cells, f"{row['spread']:.2f}", f"{row['rankme']:.1f}", f"{row['device_seconds']:.0f}"
        )
    console.print(shown)
    for backbone, values in bases.items():
        said = ", ".join(f"{what} {np.nanmean(values[what]):.3f}" for what in READOUTS)
        console.print(f"untrained {backbone}: {said}", highlight=False)
    for what in READOUTS:
        above = int((table[f"{what}_low"] > 0).sum())
        console.print(f"{what}: {above} of {len(table)} losses above the untrained encoder ({above / len(table):.0%})")


if __name__ == "__main__":
    main()
