"""What each kind of stage computes. Everything it needs stands in the stage and in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from usbench.data.cohort import Cohort, Rows, digest_of, division_of, rows_tested, whole
from usbench.data.pack import Pack
from usbench.errors import RunFailed
from usbench.hooks import Registry
from usbench.runs.memory import sparing_of
from usbench.runs.records import WEIGHTS
from usbench.runs.same import check_start, same_imagenet
from usbench.runs.stage import Stage
from usbench.runs.store import Store


class Kinds:
    """Pretraining, fine-tune and evaluation."""

    def __init__(self, store: Store, registry: Registry, ranks: Any = None) -> None:
        self.store, self.registry = store, registry
        self.ranks = ranks  # a train.ranks.Ranks where several processes do a stage together
        self.packs: dict[str, Pack] = {}

    def do(self, stage: Stage, folder: Path, watcher: Any) -> dict[str, Any]:
        """Compute a stage in its folder; returns the facts for its record."""
        kinds = {"pretrain": self._pretrain, "finetune": self._finetune, "evaluate": self._evaluate}
        return kinds[stage.kind](stage, folder, watcher)

    def build(self, stage: Stage) -> None:
        """Build what a training is made of, and nothing else."""
        from usbench.train.networks import build_network
        from usbench.train.pretrain import build_loss, build_views
        from usbench.train.schedule import Schedule

        identity, plugins = stage.identity, stage.places["plugins"]
        part = self._part("backbone", plugins["backbone"])
        network = build_network(part.entry, part.options, identity["size"], identity["seed"])
        if stage.kind == "finetune":
            self._protocol(stage, identity)[0].adapt(network)
            return
        cpu = self._compute({**identity, "device": "cpu"})
        loss = build_loss(
            self._part("loss", plugins["loss"]), network, Schedule(**identity["schedule"]), cpu, identity["seed"]
        )
        build_views(tuple(self._part("augmentation", c) for c in plugins["steps"]), identity["size"], loss.views)

    def _pack(self, path: str) -> Pack:
        if path not in self.packs:
            self.packs[path] = Pack(Path(path))
        return self.packs[path]

    @staticmethod
    def _check_same(images: Rows, expected: str) -> None:
        if digest_of(images) != expected:
            names = ", ".join(str(pack.path) for pack, _ in images)
            raise RunFailed(
                f"{names} or a split file was changed after the run was planned: run the same command again."
            )

    def _compute(self, identity: dict[str, Any]) -> Any:
        import torch

        from usbench.train.loop import Compute

        return Compute(torch.device(identity["device"]), identity["precision"])

    def _network(self, stage: Stage, identity: dict[str, Any]) -> tuple[Any, dict[str, str]]:
        """The network with its starting weights, and the facts of these."""
        from usbench.train.networks import build_network, imagenet_file, start_from

        part = self._part("backbone", stage.places["plugins"]["backbone"])
        network = build_network(part.entry, part.options, identity["size"], identity["seed"])
        init = stage.places["init"]
        check_start(init, identity["init"])
        start = {"load": str(start_from(network, init) or "")}
        if init == "imagenet":
            start["start"] = same_imagenet(self.store, network.timm_name, imagenet_file(network.timm_name))
        return network, start

    def _protocol(self, stage: Stage, identity: dict[str, Any]) -> tuple[Any, bool]:
        """The protocol, which knows the classes that it tells apart; and whether it fits frozen features."""
        from usbench.train.held import check_protocol

        part = self._part("protocol", stage.places["plugins"]["protocol"])
        protocol = check_protocol(part.build(), part.entry.name)
        protocol.classes = tuple(identity.get("classes", ()))
        return protocol, part.entry.frozen

    def _part(self, kind: str, choice: list[Any]) -> Any:
        from usbench.train.pretrain import Part

        entry = self.registry.get(kind, choice[0])
        return Part(entry, entry.parse(choice[1]))  # a worker is given tuples as lists

    def _pretrain(self, stage: Stage, folder: Path, watcher: Any) -> dict[str, Any]:
        from usbench.data.feed import Feed
        from usbench.evaluate.collapse import feature_spread_and_rankme
        from usbench.evaluate.testing import encoder_features
        from usbench.train.pretrain import pretrain
        from usbench.train.schedule import Schedule

        identity, compute = stage.identity, self._compute(stage.identity)
        own = Cohort.of(stage.places["pretrain"], self._pack).train()
        others = [(self._pack(path), device) for path, device in stage.places["pretrain_whole"]]
        images = [*own, *((pack, whole(pack, device)) for pack, device in others)]
        self._check_same(images, identity["images"])
        part = self._part("loss", stage.places["plugins"]["loss"])
        kept = part.entry.learns_labels  # the labels of what is trained on too: nobody is shown others
        unlabelled = [pack for pack, _ in own if not kept or pack.digest in identity.get("hidden", ())]
        unlabelled += [pack for pack, _ in others]
        network, start = self._network(stage, identity)
        feeds: list[Feed] = []

        def feed_of(sectors: bool) -> Feed:
            feeds.append(Feed(images, identity["size"], compute.device, sectors=sectors, unlabelled=unlabelled))
            return feeds[0]

        facts = pretrain(
            title=stage.title, folder=folder, network=network, feed_of=feed_of, compute=compute,
            part=part,
            steps=tuple(self._part("augmentation", choice) for choice in stage.places["plugins"]["steps"]),
            schedule=Schedule(**identity["schedule"]), seed=identity["seed"], size=identity["size"],
            watcher=watcher, ranks=self.ranks, sparing=sparing_of(stage),
        )  # fmt: skip
        if self.ranks is not None and self.ranks.rank > 0:
            return facts  # the first speaks for all
        features = encoder_features(network, feeds[0], compute)
        return {**facts, "images": feeds[0].count, **start, **feature_spread_and_rankme(features)}

    def _finetune(self, stage: Stage, folder: Path, watcher: Any) -> dict[str, Any]:
        from usbench.data.feed import Feed
        from usbench.evaluate.testing import Looks
        from usbench.train import checkpoint
        from usbench.train.finetune import finetune, fit
        from usbench.train.schedule import Schedule

        identity, compute = stage.identity, self._compute(stage.identity)
        cohort = Cohort.of(stage.places["data"], self._pack)
        sides = cohort.fraction(stage.row["label_fraction"], identity["seed"])
        for rows, expected in zip(sides, (identity["labelled"], identity["inner"]), strict=True):
            self._check_same(rows, expected)
        network, start = self._network(stage, identity)
        inherited: dict[str, Any] = {"pretrain_labels": "none"}
        if stage.places["pretrained"]:
            weights, _ = checkpoint.read(self.store.file(stage.places["pretrained"], WEIGHTS))
            self._inherit(network, weights, stage.places["pretrained"])
            facts = self.store.record(stage.places["pretrained"])["facts"]
            inherited = {k: facts[k] for k in ("pretrain_labels", "steps", "images_seen", "pixels_seen")}
            inherited |= {f"pretrain_{k}": facts[k] for k in ("device_seconds", "peak_mib", "spread", "rankme")}
        protocol, frozen = self._protocol(stage, identity)
        wanted = {"masks": cohort.parts[0][1].wanted.mask, "classes": protocol.classes}
        feeds = [Feed(rows, identity["size"], compute.device, **wanted) if rows else None for rows in sides]
        assert feeds[0] is not None
        protocol.counts = tuple(int((feeds[0].label == code).sum()) for code in range(len(protocol.classes)))
        given = {
            "folder": folder, "network": network, "protocol": protocol, "feed": feeds[0], "inner": feeds[1],
            "compute": compute, "seed": identity["seed"], "size": identity["size"],
        }  # fmt: skip
        if frozen:
            facts = fit(**given)
        else:
            look = None
            if protocol.keeps_choices:  # of the images that tests may be on
                others = [Feed([part], identity["size"], compute.device, **wanted) for part in cohort.untrained(sides)]
                look = Looks(protocol, others, compute, folder) if others else None
            facts = finetune(
                title=stage.title, schedule=Schedule(**identity["schedule"]), watcher=watcher, look=look,
                sparing=sparing_of(stage), **given,
            )  # fmt: skip
        return {
            **facts, "images": feeds[0].count, "inner_images": feeds[1].count if feeds[1] else 0,
            **start,
            **{f"pretrain_{k}" if k in facts else k: v for k, v in inherited.items()},
        }  # fmt: skip

    @staticmethod
    def _inherit(network: Any, weights: dict[str, Any], source: str) -> None:
        own = network.state_dict()
        if unknown := [name for name in weights if name not in own or own[name].shape != weights[name].shape]:
            raise RunFailed(f"the weights of {source} do not fit the network at '{unknown[0]}': delete its folder.")
        network.load_state_dict(weights, strict=False)

    def _evaluate(self, stage: Stage, folder: Path, watcher: Any) -> dict[str, Any]:
        import torch

        from usbench.data.feed import Feed
        from usbench.evaluate import shifts
        from usbench.evaluate.segmentation import CALIBRATION
        from usbench.evaluate.testing import best_on_test, examine
        from usbench.train import checkpoint

        tuned = self.store.record(stage.places["finetuned"])
        identity = tuned["identity"]
        compute = self._compute(identity)
        network = self._part("backbone", stage.places["plugins"]["backbone"]).build()
        protocol, _ = self._protocol(stage, identity)
        model, weights = protocol.adapt(network), self.store.file(stage.places["finetuned"], WEIGHTS)
        checkpoint.restore(model, checkpoint.read(weights)[0])
        compute.place(model)
        pack = self._pack(stage.places["test"])
        division = division_of(stage.places["division"])
        rows = rows_tested(pack, division, stage.places["which"])
        self._check_same([(pack, rows)], stage.identity["images"])
        corruption = stage.identity.get("shift")
        feed = Feed(
            [(pack, rows)], identity["size"], compute.device, classes=protocol.classes,
            read=shifts.reader(corruption) if corruption else None,
        )  # fmt: skip
        scores, bits = examine(model, protocol, feed, compute)
        metrics, beside = [*protocol.metrics, *(name for name in (CALIBRATION,) if name in scores)], {}
        # A corrupted image is none that the looks predicted.
        found = best_on_test(protocol, feed, weights.parent) if protocol.keeps_choices and not corruption else None
        if found is not None:
            beside["best_on_test_step"], best = found
            best.to_csv(folder / "best-on-test.csv", index=False, float_format="%.6g")
        scores.to_csv(folder / "scores.csv", index=False, float_format="%.6g")
        if bits is not None:
            checkpoint.write(
                folder / "masks.safetensors",
                {"masks": torch.from_numpy(bits)},
                {"height": pack.size, "width": pack.size, "names": "scores.csv"},
            )
        kept = ("steps", "images_seen", "pixels_seen", "device_seconds", "peak_mib")
        totals = {k: tuned["facts"][k] for k in kept}
        for k in ("steps", "images_seen", "pixels_seen", "device_seconds"):
            totals[k] += tuned["facts"].get(f"pretrain_{k}") or 0
        totals["peak_mib"] = max(totals["peak_mib"], tuned["facts"].get("pretrain_peak_mib") or 0)
        inner = (f"{protocol.primary}_inner", f"{protocol.primary}_inner_last")
        copied = ("selection", *inner, "pretrain_labels", "pretrain_spread", "pretrain_rankme")
        return {
            **totals, **{k: tuned["facts"].get(k) for k in copied}, "pack": pack.digest,
            "images": len(scores), "groups": int(scores.group.nunique()), "primary": protocol.primary,
            "metrics": metrics, **beside, **({"classes": list(protocol.classes)} if protocol.classes else {}),
        }  # fmt: skip
