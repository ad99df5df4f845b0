"""An export: a folder with the weights of a network, its config, its records and a card, loadable without usbench."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from usbench.errors import UsbenchError, text_of, texts_of
from usbench.hooks import registry
from usbench.report.masks import MASKS, Masks
from usbench.runs.records import WEIGHTS, write_json
from usbench.share import graph
from usbench.share.card import Card
from usbench.share.choose import Trained, choose
from usbench.share.config import CONFIG, ENCODER, FORMAT, GRAPH, NETWORK, Config, Plugin
from usbench.share.network import build, fill, refuse_infinite
from usbench.share.origin import spec_of
from usbench.share.provenance import Source, all_insonified, sources, trained_on, unseen
from usbench.share.recipes import Recipe, encoder_recipe, network_recipe
from usbench.spec import config_text
from usbench.train import checkpoint
from usbench.train.networks import load_encoder

PathLike = str | os.PathLike[str]
CARD, RECORD, SETTINGS = "README.md", "record.json", "run.toml"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    title: str
    said: str  # which of several networks it is; empty where there was no choice
    files: tuple[str, ...]
    notes: tuple[str, ...]  # what its reader should know


def export(
    run: PathLike, out: PathLike, *, stores: PathLike | Sequence[PathLike] = (), seed: int | None = None,
    labels: float | None = None, onnx: bool = False, force: bool = False,
) -> Exported:  # fmt: skip
    """Write the network of a run to a folder, whole or not at all: weights, config, records and a model card."""
    folder = Path(text_of(out, "-o"))
    _check_free(folder, force)
    if onnx:
        graph.check_installed()
    trained = choose(
        text_of(run, "export:"), [Path(store) for store in texts_of(stores, "stores=")], seed=seed, labels=labels
    )
    if not trained.store.ready(stage := f"finetune-{trained.key}"):
        raise UsbenchError(
            f"{trained.store.folder(stage)} was published without its weights: run it again, then export."
        )
    try:
        used = sources(trained)
        config = config_of(trained, used)
    except (KeyError, TypeError, AttributeError) as error:
        record = trained.store.folder(f"finetune-{trained.key}") / "record.json"
        raise UsbenchError(f"{record}, or the record of a test of it, is damaged ({error}): run it again.") from None
    place = Path(os.path.realpath(folder))  # which a link to itself does not break
    temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex}.part")
    try:
        temporary.mkdir(parents=True)
        files = _write(temporary, trained, config, used, onnx)
        _put(temporary, place)
    except OSError as error:
        raise UsbenchError(f"{folder} cannot be written ({error.strerror or error}): name another folder.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(folder, files.pop(), trained.said, tuple(files), tuple(_notes(trained, used, files)))


def config_of(trained: Trained, used: Sequence[Source]) -> Config:
    """The config of a network in a store."""
    identity, row = trained.record["identity"], trained.first.row
    canvas = _canvas(trained)
    own = trained_on(used, row)
    whole = bool(own) and all(all_insonified(source.pack) for source in own)
    record = trained.store.folder(f"finetune-{trained.key}") / "record.json"
    try:
        return _config(trained, canvas, row, identity, whole)
    except (KeyError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise UsbenchError(f"{record} is damaged ({why}): delete its folder and run again.") from None


def _config(trained: Trained, canvas: int, row: dict[str, Any], identity: dict[str, Any], whole: bool) -> Config:
    from usbench.data.pack import side_of
    from usbench.views import DEVIATION, MEAN

    return Config(
        format=FORMAT, key=str(row["setting"]), finetuned=trained.key, pretrained=identity.get("pretrained"),
        backbone=_plugin(identity["backbone"]), protocol=_plugin(identity["protocol"]),
        classes=list(identity.get("classes", ())), channels=1, canvas=canvas, side=side_of(identity["size"], canvas),
        size=identity["size"], mean=MEAN, deviation=DEVIATION, threshold=0.5, sector="all" if whole else "found",
        precision=identity["precision"], versions=trained.record.get("versions", {}),
    )  # fmt: skip


def _plugin(identity: dict[str, Any]) -> Plugin:
    return Plugin(name=identity["name"], options=identity["options"], source=identity["source"])


def _canvas(trained: Trained) -> int:
    """The pack's size that the masks of its tests were made at; twice the run's where it makes no masks."""
    for result in trained.tests:
        if (result.folder / MASKS).is_file():
            return Masks(result.folder).size[0]
    return 2 * int(trained.record["identity"]["size"])


def _write(folder: Path, trained: Trained, config: Config, used: Sequence[Source], onnx: bool) -> list[str]:
    """Everything into a folder; returns the files' names, and the card's title last."""
    facts = {"key": config.key, "finetuned": config.finetuned, "pretrained": config.pretrained}
    network, model, protocol = build(config, trained.store.root)
    images = torch.randn(2, 1, config.size, config.size, generator=torch.Generator().manual_seed(0))
    recipes: dict[str, Recipe] = {}
    if protocol.masks:
        fill(model, checkpoint.read(trained.weights)[0], trained.weights)
        recipe = recipes[NETWORK] = network_recipe(model, images)
        checkpoint.write(folder / NETWORK, recipe.renamed(checkpoint.tensors_of(model)), facts)
        if onnx:
            graph.write_graph(model, config.size, folder / GRAPH)
    if config.pretrained:
        source = trained.store.folder(f"pretrain-{config.pretrained}") / WEIGHTS
        tensors = checkpoint.read(source)[0]
        refuse_infinite(tensors, source)
        load_encoder(network, tensors, str(source))
        recipe = recipes[ENCODER] = encoder_recipe(network, images)
        checkpoint.write(folder / ENCODER, recipe.renamed(network.encoder.state_dict()), facts)
    if not recipes:
        raise UsbenchError(
            f"protocol '{config.protocol.name}' makes no masks and there was no pretraining, so there is nothing to "
            "take home: name a run with a pretraining."
        )
    records = {"finetune": trained.record, "evaluate": [trained.store.record(r.folder.name) for r in trained.tests]}
    write_json(folder / RECORD, {**records, "pretrain": trained.pretrained})
    again = ""
    if (spec := spec_of(trained)) is not None:
        (folder / SETTINGS).write_text(config_text(spec), "utf-8")
        again = f"usbench run --config {SETTINGS}"
    card = Card(trained, config, used, recipes.get(NETWORK), recipes.get(ENCODER), onnx and NETWORK in recipes, again)
    (folder / CARD).write_text(card.text(), "utf-8")
    digests = {path.name: _digest(path) for path in sorted(folder.iterdir())}
    write_json(folder / CONFIG, config.model_copy(update={"files": digests}).model_dump(mode="json"))
    for path in folder.glob("*.safetensors"):
        shutil.copymode(folder / CONFIG, path)  # the writer of safetensors lets nobody else read them
    return [*sorted(path.name for path in folder.iterdir()), card.title]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _notes(trained: Trained, used: Sequence[Source], files: Sequence[str]) -> list[str]:
    """What the user should know of it before passing it on."""
    notes = [
        f"the licence of '{source.name}' is not known here, since its pack is not on this machine: say it in the card"
        for source in used if source.pack is None and source.uses != ["tests"]
    ]  # fmt: skip
    lost = unseen(trained_on(used, trained.record["row"])) if NETWORK in files else []
    notes += [
        f"the sector will be found in each image, since the pack of '{source.name}', which says whether there is any, "
        "is not on this machine: import or make it and export again, or masks may be cut where the tests cut none"
        for source in lost
    ]
    if SETTINGS not in files:
        notes.append(
            f"there is no {SETTINGS}, since no run or suite that has ended says that it asked for this network: give "
            "its command again and export again"
        )
    for kind in ("backbone", "protocol"):
        identity = trained.record["identity"][kind]
        if registry().get(kind, identity["name"]).source != identity["source"]:
            notes.append(f"the {kind} '{identity['name']}' was changed since the run")
    return notes


def _check_free(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsbenchError(f"-o {folder} is a file: name a folder.")
    if folder.is_dir() and not force and any(folder.iterdir()):
        raise UsbenchError(f"-o {folder} is not empty: name another folder, or --force replaces it.")
    if folder.is_dir() and force and any(folder.iterdir()) and not (folder / CONFIG).is_file():
        raise UsbenchError(f"-o {folder} holds something else than an export: --force replaces exports alone.")


def _put(made: Path, folder: Path) -> None:
    """Put what was made in its place; an old export goes only when the new one is whole.

    A folder that is there stays the same one, since somebody may stand in it.
    """
    if not folder.exists():
        made.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.old")
    old.mkdir()
    moved: list[tuple[Path, Path]] = []
    try:
        for source, target in ((folder, old), (made, folder)):
            for path in sorted(source.iterdir(), key=lambda path: path.name == CONFIG):  # an export is known by it
                moved.append((path, path.rename(target / path.name)))
    except OSError:
        for was, now in reversed(moved):
            now.rename(was)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)
