"""The model card of an export: README.md as the Hugging Face hub reads it. Strangers' names are never markup."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from huggingface_hub import EvalResult, ModelCardData

from usbench.errors import UsbenchError
from usbench.hooks import Entry, registry
from usbench.report.cells import Cell
from usbench.report.citation import bibtex
from usbench.report.differences import difference
from usbench.report.files import one_line, plain
from usbench.share.choose import Trained
from usbench.share.config import ENCODER, GRAPH, NETWORK, Config
from usbench.share.provenance import Source, trained_on, unseen
from usbench.share.recipes import Recipe
from usbench.spec import Choice

LIBRARIES = {"smp": "segmentation-models-pytorch", "timm": "timm", "usbench": "usbench"}


@dataclass(frozen=True)
class Card:
    """What a card is made of."""

    trained: Trained
    config: Config
    sources: Sequence[Source]
    network: Recipe | None  # how to load the fine-tuned network; None where the export has none
    encoder: Recipe | None
    graph: bool  # whether there is an ONNX file
    again: str  # the command that makes it again; empty where nobody knows

    @property
    def title(self) -> str:
        """What it is in a line."""
        row = self.trained.record["row"]
        how = "without pretraining" if row["baseline"] else f"pretrained with {row['loss']} under {row['aug']}"
        return f"{row['backbone']}, {how}, fine-tuned on {row['label_fraction']:g} % of {row['train_data']}"

    def text(self) -> str:
        """The whole card."""
        sections = [
            f"---\n{self._head()}\n---", f"# {plain(self.title)}",
            "A network for B-mode ultrasound, trained and tested by usbench.\n\n"
            "**For research only. It is not a medical device** and must not be used to diagnose, screen, plan or "
            "monitor. It was tested on the data sets below and on nothing else; on other scanners, settings, organs or "
            "people it may fail without a sign.",
            self._loading(), self._preparing(), self._data(), self._training(), self._scores(), self._again(),
        ]  # fmt: skip
        return "\n\n".join(part for part in sections if part) + "\n"

    def _head(self) -> str:
        """The front matter. The licence is that of no licence list: it hangs on the training data."""
        recipe = self.network or self.encoder
        data = ModelCardData(
            license="other",
            license_name="see-training-data",
            library_name=LIBRARIES[recipe.library] if recipe else "usbench",
            pipeline_tag="image-segmentation" if self.network else "image-feature-extraction",
            tags=["ultrasound", "medical-imaging", "self-supervised-learning", "research-only"],
            model_name=one_line(self.title),
            eval_results=[
                EvalResult(
                    task_type="image-segmentation" if self.network else "image-classification",
                    dataset_type=one_line(str(result.row["test_data"])),
                    dataset_name=f"{one_line(str(result.row['test_data']))} ({result.row['shift']})",
                    metric_type=str(result.facts.get("primary", "dice")),
                    metric_value=round(Cell([result]).interval().mean, 4),
                )
                for result in self.trained.tests
                if ":" not in result.row["shift"] and not math.isnan(Cell([result]).interval().mean)
            ]
            or None,
        )
        return str(data.to_yaml())

    def _loading(self) -> str:
        parts = ["## Load it\n\nRun these lines in the folder of the export; `images` is what *Preprocessing* makes."]
        for recipe, what in (
            (self.network, f"The fine-tuned network (`{NETWORK}`): logits, a lesion where they are above "
             f"{_logit(self.config.threshold):g}."),
            (self.encoder, f"The encoder as pretraining left it (`{ENCODER}`): pooled features."),
        ):  # fmt: skip
            if recipe is not None:
                parts.append(f"{what}\n\n```python\n{recipe.imports}\n\n{recipe.lines}\n```")
        if self.encoder is None:
            parts.append("There was no pretraining, so there is no pretrained encoder.")
        if self.graph:
            parts.append(f"`{GRAPH}` is the network for ONNX runtimes: `images` in, `logits` out, any batch.")
        if self.network is not None:
            parts.append(
                "usbench itself takes whole images of any kind, and gives masks at their own size:\n\n"
                "```\nusbench predict . IMAGES -o predictions\n```"
            )
        return "\n\n".join(parts)

    def _preparing(self) -> str:
        c = self.config
        shrink = f'small = interpolate(square, size={c.side}, mode="area").round()' if c.side < c.canvas else ""
        steps = [
            f"one grey channel, letter-boxed into {c.canvas} × {c.canvas} (antialiased bilinear, centred, on black)",
            *([f"shrunk to {c.side} by area and rounded"] if shrink else []),
            f"resampled to {c.size} × {c.size} (bilinear), divided by 255, less {c.mean:g}, divided by {c.deviation:g}",
        ]
        after = f"Logits are brought to {c.canvas} × {c.canvas} (bilinear) and cut; padding is cut off"
        after += "; outside the insonified sector there is no lesion." if c.sector == "found" else "."
        if lost := unseen(trained_on(self.sources, self.trained.record["row"])):
            names = ", ".join(plain(source.name) for source in lost)
            after += f" The sector is found in each image; whether those of {names} have one was not known here."
        resample = f'seen = interpolate({"small" if shrink else "square"}, size={c.size}, mode="bilinear")'
        code = f"""\
import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

grey = Image.open("scan.png").convert("L")
scale = {c.canvas} / max(grey.size)
width, height = (max(1, round(side * scale)) for side in grey.size)
canvas = Image.new("L", ({c.canvas}, {c.canvas}))
at = (({c.canvas} - width) // 2, ({c.canvas} - height) // 2)
canvas.paste(grey.resize((width, height), Image.Resampling.BILINEAR), at)
square = torch.from_numpy(np.array(canvas, np.float32))[None, None]
{shrink + chr(10) if shrink else ""}{resample}
images = (seen / 255 - {c.mean!r}) / {c.deviation!r}"""
        listed = "\n".join(f"{n}. {step}" for n, step in enumerate(steps, 1))
        return f"## Preprocessing\n\n{listed}\n\n```python\n{code}\n```\n\n{after if self.network else ''}".rstrip()

    def _data(self) -> str:
        lines = ["| set | used for | licence | source |", "|---|---|---|---|"]
        for source in self.sources:
            cells = [source.name, "; ".join(source.uses), *(self._told(source, a) for a in ("licence", "source"))]
            lines.append(f"| {' | '.join(map(plain, cells))} |")
        cited = [f"- {plain(s.name)}: {plain(s.said('citation'))}" for s in self.sources if s.said("citation")]
        row, facts = self.trained.record["row"], self.trained.record["facts"]
        inner = facts.get("inner_images", 0) or "no"
        said = (
            f"Fine-tuned on {facts.get('images', '?')} annotated images, {row['label_fraction']:g} % of those of the "
        )
        said += f"training side; {inner} more chose the step. "
        if leaks := max((int(r.row.get("leaks", 0) or 0) for r in self.trained.tests), default=0):
            said += f"**{leaks} training images are near-duplicates of tested ones**, which was allowed by hand."
        else:
            said += "It was tuned on no test image, and, where the set names patients, on no other image of theirs."
        licence = (
            "**Licence.** Whether and how weights may be used and passed on hangs on the licences of the images that "
            "they were trained on, which are in the table. A set that forbids commercial use, or asks for a signed "
            "agreement, is a reason to keep these weights to yourself. usbench is Apache-2.0 and adds no condition."
        )
        return "\n\n".join(["## Data", "\n".join(lines), said, "\n".join(cited), licence])

    @staticmethod
    def _told(source: Source, attribute: str) -> str:
        return source.said(attribute) or ("not said" if source.pack is not None else "not known on this machine")

    def _training(self) -> str:
        record, pretrained = self.trained.record, self.trained.pretrained
        steps = [f"- starting weights: {plain(record['row'].get('init', ''))}"]
        if pretrained:
            labels = pretrained["facts"].get("pretrain_labels", "none")
            steps.append(f"- pretraining: {_schedule(pretrained)}; labels it saw: {labels}")
        steps.append(f"- fine-tuning: {_schedule(record)}; step chosen on {_selected(record)}")
        made_of, papers = [], list[str]()
        for entry in self._plugins():
            paper = f" ({plain(entry.reference)})" if entry.reference else ""
            made_of.append(f"- {entry.kind} `{entry.name}`: {plain(entry.summary)}{paper}")
            papers += [part.strip() for part in entry.reference.split(";") if part.strip()]
        parts = ["## Training", "\n".join(steps), "\n".join(made_of)]
        if pretrained and record["row"].get("reconstruction"):
            parts.append("The method is a reconstruction: its paper does not say enough to build it from.")
        if entries := "\n".join(dict.fromkeys(map(bibtex, papers))).replace("```", ""):
            parts.append(f"```bibtex\n{entries}\n```")
        return "\n\n".join(part for part in parts if part)

    def _plugins(self) -> Iterator[Entry]:
        """The plugins that made it, as far as they are installed here."""
        row, known = self.trained.record["row"], {(e.kind, e.name): e for e in registry().entries()}
        names = [("loss", str(row["loss"])), *(("augmentation", aug) for aug in str(row["aug"]).split("+"))]
        names += [("backbone", str(row["backbone"])), ("protocol", str(row["protocol"]))]
        for kind, text in names:
            try:
                entry = known.get((kind, Choice.parse(text).name))
            except UsbenchError:
                continue
            if entry is not None and not entry.baseline and entry.name != "none":
                yield entry

    def _scores(self) -> str:
        rows = [
            "| tested on | shift | metric | this network [95 %] | all seeds [95 %] | less baseline [95 %] | images |"
        ]
        rows.append("|---|---|---|---|---|---|---|")
        corrupted = 0
        for result in self.trained.tests:
            if ":" in result.row["shift"]:
                corrupted += 1
                continue
            cell = next(c for c in self.trained.rows if any(r.folder == result.folder for r in c.results))
            alone, gain = Cell([result]), difference(cell, cell.base)
            seeds = f"{_interval(cell.interval(), '.3f')} ({len(cell.seeds)})" if len(cell.seeds) > 1 else ""
            rows.append(
                f"| {plain(result.row['test_data'])} | {plain(result.row['shift'])} | {plain(cell.primary)} "
                f"| {_interval(alone.interval(), '.3f')} | {seeds} | {_interval(gain, '+.3f')} "
                f"| {alone.counts()['images']:g} |"
            )
        said = "Means over images" + (" with a lesion" if self.trained.rows[0].counts().get("lesions") else "")
        said += "; intervals are over patients, and over seeds where there are several (their number in brackets)."
        said += " The baseline is the same network, fine-tuned alike without pretraining."
        said += f" {corrupted} tests on corrupted images are in `record.json`." if corrupted else ""
        return "\n".join(["## Scores", "", *rows, "", said])

    def _again(self) -> str:
        c, record = self.config, self.trained.record
        keys = [
            f"row `{c.key}`",
            f"fine-tune `{c.finetuned}`",
            *([f"pretraining `{c.pretrained}`"] if c.pretrained else []),
        ]
        libraries = ", ".join(f"{plain(name)} {plain(v)}" for name, v in record.get("versions", {}).items())
        text = f"## Make it again\n\nKeys: {', '.join(keys)}. `record.json` holds all that determined them.\n\n"
        text += f"```\n{self.again}\n```\n\n" if self.again else ""
        return f"{text}Computed on {plain(record['row'].get('device', ''))} in {c.precision} with {libraries}."


def _schedule(record: dict) -> str:
    schedule = record["identity"].get("schedule")
    if not schedule:
        return "fitted once to frozen features"
    return f"{schedule['steps']} steps of {schedule['batch']} images, learning rate {schedule['lr']:g}"


def _selected(record: dict) -> str:
    chosen = record["facts"].get("selection")
    return "inner validation" if chosen == "inner" else "nothing (the last one counts)"


def _interval(estimate: object, form: str) -> str:
    mean, low, high = (getattr(estimate, name) for name in ("mean", "low", "high"))
    if math.isnan(mean):
        return ""
    return f"{mean:{form}}" if math.isnan(low) else f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def _logit(threshold: float) -> float:
    return math.log(threshold / (1 - threshold))
