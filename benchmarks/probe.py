"""What every registered loss makes of an encoder, against one that was never trained: a linear read-out of lesions.

    python benchmarks/probe.py --out runs/probe --csv results/probe/probe.csv [--losses simclr,rcl] [--seeds 3]

Each loss pretrains on phantom:l7 (stills and cine clips) as the quick preset does. The encoder is then frozen, its
BatchNorm statistics are recomputed on clean training images, and a logistic regression reads lesion or not from each
cell of the deepest map. It is judged on 300 other patients of the same scanner: the area under the ROC curve within
each image, and the paired difference to the untrained encoder of the same seed, over patients crossed with seeds.
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
from usbench.evaluate.probe import cell_features, cell_lesions, clean_statistics, lesion_auc, linear_model
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
TOKENS = "vit-tiny:dim=64,depth=4"


def backbone_of(entry: Entry) -> str:
    return TOKENS if "tokens" in entry.needs else "unet-tiny"


def planned(names: list[str], seeds: int, display: Display) -> dict[tuple[str, int], Stage]:
    """The pretraining of each loss and seed."""
    stages = {}
    for name in names:
        given = {"loss": name, "backbone": backbone_of(registry().get("loss", name)), "seeds": list(range(seeds))}
        plan = make_plan(registry(), resolve({**given, "labels": [100], "ood": []}), display.making)
        stages |= {(name, s.identity["seed"]): s for s in plan.stages if s.kind == "pretrain"}
    return stages


class Probe:
    """Train and test images, and the read-out of a network."""

    def __init__(self, display: Display, size: int) -> None:
        pack, test = (find_pack(registry(), text, display.making) for text in ("phantom:l7", TEST))
        self.compute = Compute(torch.device("cpu"), "float32")
        rows = [(pack, fold_split(pack, 0)[0]), (test, np.arange(test.count))]
        self.train, self.test = (Feed([part], size, self.compute.device, masks=True) for part in rows)
        self.lesions = [cell_lesions(feed) for feed in (self.train, self.test)]
        self.groups = test.table.group.to_numpy()

    def __call__(self, network: Network) -> np.ndarray:
        clean_statistics(network, self.train, self.compute)
        own, other = (cell_features(network, feed, self.compute) for feed in (self.train, self.test))
        model = linear_model(own.reshape(-1, own.shape[-1]), self.lesions[0].reshape(-1))
        return lesion_auc(other, self.lesions[1], model)


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
    bases: dict[str, np.ndarray] = {}
    rows = []
    for name in names:
        entry = registry().get("loss", name)
        backbone = backbone_of(entry)
        if backbone not in bases:
            untrained = [probe(network_of(backbone, spec.size, seed)) for seed in range(given.seeds)]
            bases[backbone] = np.stack(untrained, 1)
        found, facts = [], []
        for seed in range(given.seeds):
            stage = stages[name, seed]
            network = network_of(backbone, spec.size, seed)
            weights, _ = checkpoint.read(store.folder(stage.id) / "weights.safetensors")
            network.load_state_dict(weights, strict=False)
            found.append(probe(network))
            facts.append(store.record(stage.id)["facts"])
        values = np.stack(found, 1)
        auc, more = crossed_interval(values, probe.groups), crossed_interval(values - bases[backbone], probe.groups)
        rows.append(
            {
                "loss": name, "backbone": backbone, "auc": auc.mean, "difference": more.mean, "low": more.low,
                "high": more.high, "spread": np.mean([f["spread"] for f in facts]),
                "rankme": np.mean([f["rankme"] for f in facts]), "pretrain_labels": facts[0]["pretrain_labels"],
                "seconds": np.mean([f["device_seconds"] for f in facts]), "reconstruction": entry.reconstruction,
            }
        )  # fmt: skip
        console.print(f"{name}: {more.mean:+.3f} [{more.low:+.3f}, {more.high:+.3f}]", highlight=False)
    show(console, pd.DataFrame(rows).sort_values("difference", ascending=False), bases)
    if given.csv:
        given.csv.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(given.csv, index=False, float_format="%.4f")


def show(console: Console, table: pd.DataFrame, bases: dict[str, np.ndarray]) -> None:
    shown = Table("loss", "AUC", "to untrained [95 %]", "spread", "RankMe", "s")
    for row in table.to_dict("records"):
        shown.add_row(
            row["loss"], f"{row['auc']:.3f}", f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]",
            f"{row['spread']:.2f}", f"{row['rankme']:.1f}", f"{row['seconds']:.0f}",
        )  # fmt: skip
    console.print(shown)
    for backbone, values in bases.items():
        console.print(f"untrained {backbone}: {np.nanmean(values):.3f}", highlight=False)
    above = int((table.low > 0).sum())
    console.print(f"{above} of {len(table)} losses above the untrained encoder ({above / len(table):.0%})")


if __name__ == "__main__":
    main()
