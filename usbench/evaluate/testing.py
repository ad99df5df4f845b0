"""A trained network on a test set: a score for each image, and its predicted mask where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from usbench.contracts import Network, Protocol, pooled
from usbench.data.feed import Feed
from usbench.data.pack import Pack
from usbench.evaluate.segmentation import pack_masks
from usbench.train import checkpoint
from usbench.train.finetune import CHOICE, EVALUATION_BATCH, plain_images
from usbench.train.loop import Compute


def examine(
    model: nn.Module, protocol: Protocol, feed: Feed, compute: Compute
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The scores of every image of a test set, and the predicted masks, as bits, of a protocol that makes some."""
    (pack, indices), *_ = feed.parts
    if not protocol.masks:
        return tabulate_images(protocol, predict(model, protocol, feed, pack.size, compute), feed), None
    scores: list[pd.DataFrame] = []
    bits: list[np.ndarray] = []
    for rows, predicted in _predictions(model, protocol, feed, pack.size, compute):
        # No lesion is seen outside the insonified region, whatever the network says there.
        masks = predicted & pack.plane("sector", indices[rows])
        scores.append(score_images(protocol, masks, pack, indices[rows]))
        bits.append(pack_masks(masks))
    return pd.concat(scores, ignore_index=True), np.concatenate(bits)


def best_on_test(
    model: nn.Module, protocol: Protocol, feed: Feed, compute: Compute, folder: Path
) -> tuple[int, pd.DataFrame]:
    """The step that the test set itself likes best, of those kept in `folder`, and its scores.

    This is a leak, and what some papers report: it is recorded under its own name and nothing else may read it.
    """
    found: dict[int, pd.DataFrame] = {}
    for path in sorted(folder.glob(f"{CHOICE}*")):
        weights, facts = checkpoint.read(path)
        model.load_state_dict(weights, strict=False)  # all that training changed; the rest is the same at every step
        found[facts["step"]] = examine(model, protocol, feed, compute)[0]
    step = max(found, key=lambda step: (found[step][protocol.primary].mean(), -step))
    return step, found[step]


def predict(model: nn.Module, protocol: Protocol, feed: Feed, pack_size: int, compute: Compute) -> np.ndarray:
    """(N, size, size) bool masks at the pack's size, or (N, …) what else the protocol predicts."""
    return np.concatenate([made for _, made in _predictions(model, protocol, feed, pack_size, compute)])


def _predictions(
    model: nn.Module, protocol: Protocol, feed: Feed, pack_size: int, compute: Compute
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A batch of the feed's rows at a time, and what is predicted of them."""
    model.eval()
    for rows in feed.in_turn(np.arange(feed.count), EVALUATION_BATCH, feed.images):
        with torch.inference_mode(), compute.autocast():
            output = model(plain_images(feed, rows, feed.size))
        with torch.inference_mode():
            made = protocol.predict(output, pack_size).cpu().numpy()
        yield rows, made


def score_images(protocol: Protocol, predicted: np.ndarray, pack: Pack, indices: np.ndarray) -> pd.DataFrame:
    """One row an image: who it is and its metrics. Padding is cut off before anything is measured."""
    truth = pack.plane("mask", indices)
    found = []
    for mask, true, known in zip(predicted, truth, pack.table.iloc[indices].to_dict("records"), strict=True):
        top, left = known["offset_y"], known["offset_x"]
        height = max(1, round(known["native_height"] * known["scale"]))
        width = max(1, round(known["native_width"] * known["scale"]))
        inside = np.s_[top : top + height, left : left + width]
        found.append(
            {
                "name": known["name"], "group": known["group"], "label": known["label"],
                "lesion": bool(true.any()), "pixel_mm": known["pixel_mm"],
                **protocol.score(mask[inside], true[inside], 1 / known["scale"]),
            }
        )  # fmt: skip
    return pd.DataFrame(found)


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
        for some in feed.in_turn(rows, EVALUATION_BATCH, feed.images):
            with compute.autocast():
                maps = network.encoder(plain_images(feed, some, feed.size))
            found.append(pooled(maps).float().cpu().numpy())
    return np.concatenate(found)
