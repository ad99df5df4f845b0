"""A trained network on a test set: a score for each image, and its predicted mask where there is one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from usbench.contracts import Network, Protocol, pooled
from usbench.data.feed import Feed
from usbench.data.pack import Pack
from usbench.evaluate.segmentation import CALIBRATION, calibration_error
from usbench.train import checkpoint
from usbench.train.finetune import EVALUATION_BATCH, plain_images
from usbench.train.loop import Compute

CHOICE = "choice-"


def examine(
    model: nn.Module, protocol: Protocol, feed: Feed, compute: Compute
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The scores of every image of a test set, and the predicted masks of a protocol that makes some."""
    (pack, indices), *_ = feed.parts
    errors: list[float] = []

    def look(rows: np.ndarray, output: Tensor) -> None:
        probability = protocol.probability(output, pack.size) if protocol.masks else None
        if probability is not None:
            errors.extend(_calibration(pack, indices[rows], probability.float().cpu().numpy()))

    scores, masks = scored(protocol, predict(model, protocol, feed, pack.size, compute, look), feed)
    return (scores.assign(**{CALIBRATION: errors}) if errors else scores), masks


def _calibration(pack: Pack, rows: np.ndarray, probability: np.ndarray) -> Iterator[float]:
    """The calibration error of each image, over the pixels that an examiner saw."""
    truth, sector = pack.plane("mask", rows), pack.plane("sector", rows)
    for one, true, seen, known in zip(
        probability, truth, sector, pack.table.iloc[rows].to_dict("records"), strict=True
    ):
        inside = native_extent(known)
        yield calibration_error(one[inside], true[inside], seen[inside])


def native_extent(known: Mapping[Hashable, Any]) -> tuple[slice, slice]:
    """Where an image lies in its letter box."""
    top, left = known["offset_y"], known["offset_x"]
    height = max(1, round(known["native_height"] * known["scale"]))
    width = max(1, round(known["native_width"] * known["scale"]))
    return np.s_[top : top + height, left : left + width]


def scored(protocol: Protocol, predicted: np.ndarray, feed: Feed) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The scores of predictions, and the masks among them as they count."""
    (pack, indices), *_ = feed.parts
    if not protocol.masks:
        return tabulate_images(protocol, predicted, feed), None
    # No lesion is seen outside the insonified region, whatever the network says there.
    masks = predicted & pack.plane("sector", indices)
    return score_images(protocol, masks, feed), masks


class Looks:
    """Keeps what a model predicts of images that it is not trained on, whenever inner validation is looked at.

    Predictions take a thousandth of the room that the weights would. One file a look, `choice-<step>.safetensors`:
    `predicted` (images, …) of `row` (images,), pack by pack as `packs` lists them by digest and number of images.
    """

    def __init__(self, protocol: Protocol, feeds: Sequence[Feed], compute: Compute, folder: Path) -> None:
        self.protocol, self.feeds, self.compute, self.folder = protocol, feeds, compute, folder

    def __call__(self, model: nn.Module, step: int) -> None:
        """Write the predictions of a step."""
        parts = [feed.parts[0] for feed in self.feeds]
        predicted = [predict(model, self.protocol, f, f.parts[0][0].size, self.compute) for f in self.feeds]
        tensors = {
            "row": torch.from_numpy(np.concatenate([rows for _, rows in parts]).astype(np.int64)),
            "predicted": torch.from_numpy(np.concatenate(predicted)),
        }
        packs = [[pack.digest, len(rows)] for pack, rows in parts]
        checkpoint.write(self.folder / f"{CHOICE}{step:06d}.safetensors", tensors, {"step": step, "packs": packs})


def best_on_test(protocol: Protocol, feed: Feed, folder: Path) -> tuple[int, pd.DataFrame] | None:
    """The step that the test set itself likes best, of the looks kept in `folder`, and its scores.

    This is a leak, and what some papers report: it is recorded under its own name and nothing else may read it. None
    where the looks hold no predictions of the test set, which is then not of a pack that was trained on.
    """
    (pack, indices), *_ = feed.parts
    found: dict[int, pd.DataFrame] = {}
    for path in sorted(folder.glob(f"{CHOICE}*")):
        tensors, facts = checkpoint.read(path)
        place: dict[int, int] = {}
        start = 0
        for digest, count in facts.get("packs", ()):
            if digest == pack.digest:
                place = {int(row): start + k for k, row in enumerate(tensors["row"][start : start + count])}
            start += count
        if not all(int(row) in place for row in indices):
            return None
        predicted = tensors["predicted"].numpy()[[place[int(row)] for row in indices]]
        found[facts["step"]] = scored(protocol, predicted, feed)[0]
    if not found:
        return None
    step = max(found, key=lambda step: (found[step][protocol.primary].mean(), -step))
    return step, found[step]


def predict(
    model: nn.Module,
    protocol: Protocol,
    feed: Feed,
    pack_size: int,
    compute: Compute,
    look: Callable[[np.ndarray, Tensor], None] = lambda rows, output: None,
) -> np.ndarray:
    """(N, size, size) bool masks at the pack's size, or (N, …) what else the protocol predicts.

    `look` is shown what the network says of each batch of rows.
    """
    model.eval()
    masks: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, feed.count, EVALUATION_BATCH):
            rows = np.arange(start, min(start + EVALUATION_BATCH, feed.count))
            with compute.autocast():
                output = model(plain_images(feed, rows, feed.size))
            masks.append(protocol.predict(output, pack_size).cpu().numpy())
            look(rows, output)
    return np.concatenate(masks)


def score_images(protocol: Protocol, predicted: np.ndarray, feed: Feed) -> pd.DataFrame:
    """One row an image: who it is and its metrics. Padding is cut off before anything is measured."""
    (pack, indices), *_ = feed.parts
    truth = pack.plane("mask", indices)
    rows = []
    for mask, true, known in zip(predicted, truth, pack.table.iloc[indices].to_dict("records"), strict=True):
        inside = native_extent(known)
        rows.append(
            {
                "name": known["name"], "group": known["group"], "label": known["label"],
                "lesion": bool(true.any()), "pixel_mm": known["pixel_mm"],
                **protocol.score(mask[inside], true[inside], 1 / known["scale"]),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def tabulate_images(protocol: Protocol, predicted: np.ndarray, feed: Feed) -> pd.DataFrame:
    """One row an image: who it is, its label as a place in the protocol's classes, and the protocol's own columns."""
    (pack, indices), *_ = feed.parts
    known = pack.table.iloc[indices]
    label, video = feed.label.cpu().numpy(), known.video.to_numpy(str)
    columns = {"name": known.name.to_numpy(), "group": known.group.to_numpy(), "label": label}
    columns |= {"video": video} if (video != "").any() else {}
    return pd.DataFrame({**columns, **protocol.tabulate(predicted, label, video)})


def encoder_features(network: Network, feed: Feed, compute: Compute, limit: int = 512) -> np.ndarray:
    """(n, dim) pooled features of up to `limit` images, spread evenly over the feed."""
    rows = np.unique(np.linspace(0, feed.count - 1, min(limit, feed.count)).astype(np.int64))
    network.eval()
    found: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(rows), EVALUATION_BATCH):
            with compute.autocast():
                maps = network.encoder(plain_images(feed, rows[start : start + EVALUATION_BATCH], feed.size))
            found.append(pooled(maps).float().cpu().numpy())
    return np.concatenate(found)
