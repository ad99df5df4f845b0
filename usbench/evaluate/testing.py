"""A trained network on a test set: a score for each image, and its predicted mask where there is one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from usbench.contracts import Network, Protocol, pooled
from usbench.data.feed import Feed
from usbench.data.pack import Pack
from usbench.errors import UsbenchError, listed
from usbench.evaluate.segmentation import CALIBRATION, calibration_error, pack_masks
from usbench.train import checkpoint
from usbench.train.loop import Compute
from usbench.train.passes import EVALUATION_BATCH, plain_images

CHOICE = "choice-"
TAKEN = ("name", "group", "label", "lesion", "pixel_mm", "video", CALIBRATION)  # columns that the harness writes


@torch.inference_mode()
def examine(
    model: nn.Module, protocol: Protocol, feed: Feed, compute: Compute
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The scores of every image of a test set, and the predicted masks, as bits, of a protocol that makes some."""
    (pack, indices), *_ = feed.parts
    if not protocol.masks:
        return scored(protocol, predict(model, protocol, feed, pack.size, compute), feed), None
    scores: list[pd.DataFrame] = []
    bits: list[np.ndarray] = []
    for rows, output in _outputs(model, feed, compute):
        masks = _seen(predicted_of(protocol, output, pack.size), pack, indices[rows])
        scores.append(score_images(protocol, masks, pack, indices[rows]))
        bits.append(pack_masks(masks))
        probability = protocol.probability(output, pack.size)
        if probability is not None:
            scores[-1][CALIBRATION] = list(_calibration(probability.float().cpu().numpy(), pack, indices[rows]))
    return pd.concat(scores, ignore_index=True), np.concatenate(bits)


def scored(protocol: Protocol, predicted: np.ndarray, feed: Feed) -> pd.DataFrame:
    """The scores of what was predicted of every image of a test set."""
    (pack, indices), *_ = feed.parts
    if not protocol.masks:
        return tabulate_images(protocol, predicted, feed)
    return score_images(protocol, _seen(predicted, pack, indices), pack, indices)


def _seen(predicted: np.ndarray, pack: Pack, indices: np.ndarray) -> np.ndarray:
    """No lesion is seen outside the insonified region, whatever the network says there."""
    return predicted & pack.plane("sector", indices)


def _calibration(probability: np.ndarray, pack: Pack, indices: np.ndarray) -> Iterator[float]:
    """The calibration error of each image, over the pixels that an examiner saw."""
    truth, sector = pack.plane("mask", indices), pack.plane("sector", indices)
    known = pack.table.iloc[indices].to_dict("records")
    for one, true, seen, what in zip(probability, truth, sector, known, strict=True):
        inside = native_extent(what)
        yield calibration_error(one[inside], true[inside], seen[inside])


def native_extent(known: Mapping[Hashable, Any]) -> tuple[slice, slice]:
    """Where an image lies in its letter box."""
    top, left = known["offset_y"], known["offset_x"]
    height = max(1, round(known["native_height"] * known["scale"]))
    width = max(1, round(known["native_width"] * known["scale"]))
    return np.s_[top : top + height, left : left + width]


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
        found[facts["step"]] = scored(protocol, predicted, feed)
    if not found:
        return None
    step = max(found, key=lambda step: (found[step][protocol.primary].mean(), -step))
    return step, found[step]


def check_columns(names: Iterable[str]) -> None:
    """Refuse columns of a protocol that are called like one of the harness's."""
    if taken := [name for name in names if name in TAKEN]:
        raise UsbenchError(
            f"a protocol scores '{taken[0]}', and a column of scores.csv has that name: call it otherwise."
        )


def check_metrics(protocol: Protocol, found: Mapping[str, Any]) -> None:
    """Refuse scores that lack a metric, or are called like a column of the harness's."""
    if not isinstance(found, Mapping):
        raise UsbenchError(f"a score is a {type(found).__name__}: give a dict of the metrics by name.")
    check_columns(found)
    for name in protocol.metrics:
        if name not in found:
            raise UsbenchError(f"a score has {listed(map(str, found))}, and no '{name}', which the protocol names.")


def check_scores(protocol: Protocol, found: Mapping[str, Any]) -> None:
    """Refuse the scores of an image that lack a metric, are called like a column of the harness's, or no numbers."""
    check_metrics(protocol, found)
    for name, value in found.items():
        if not isinstance(value, Real | np.bool_):
            raise UsbenchError(f"the score '{name}' is {value!r} ({type(value).__name__}): give a number, or NaN.")
        if np.isinf(float(value)):
            raise UsbenchError(f"the score '{name}' is {value!r}: where it is not defined it is NaN.")


@torch.inference_mode()
def predict(model: nn.Module, protocol: Protocol, feed: Feed, pack_size: int, compute: Compute) -> np.ndarray:
    """(N, size, size) bool masks at the pack's size, or (N, …) what else the protocol predicts."""
    return np.concatenate([predicted_of(protocol, output, pack_size) for _, output in _outputs(model, feed, compute)])


def predicted_of(protocol: Protocol, output: Tensor, size: int) -> np.ndarray:
    """What a protocol predicts of a network's output; masks of another form are refused, and never broadcast."""
    made = protocol.predict(output, size)
    expected = f"({len(output)}, {size}, {size})" if protocol.masks else f"({len(output)}, …)"
    said = f"{tuple(made.shape)} {made.dtype}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
    if not isinstance(made, Tensor) or made.ndim < 2 or len(made) != len(output):
        raise UsbenchError(f"the protocol predicts {said} for {len(output)} images: give a tensor {expected}.")
    if protocol.masks and (made.dtype != torch.bool or tuple(made.shape[1:]) != (size, size)):
        raise UsbenchError(f"the protocol predicts {said}: masks are bool {expected}, without a channel.")
    return made.cpu().numpy()


def _outputs(model: nn.Module, feed: Feed, compute: Compute) -> Iterator[tuple[np.ndarray, Tensor]]:
    """A batch of the feed's rows at a time, and what the network says of them."""
    model.eval()
    for rows in feed.in_turn(np.arange(feed.count), EVALUATION_BATCH, feed.images):
        with compute.autocast():
            output = model(plain_images(feed, rows, feed.size))
        yield rows, output


def score_images(protocol: Protocol, predicted: np.ndarray, pack: Pack, indices: np.ndarray) -> pd.DataFrame:
    """One row an image: who it is and its metrics. Padding is cut off before anything is measured."""
    truth = pack.plane("mask", indices)
    found = []
    for mask, true, known in zip(predicted, truth, pack.table.iloc[indices].to_dict("records"), strict=True):
        inside = native_extent(known)
        lesion = bool(true.any())
        scores = protocol.score(mask[inside], true[inside], 1 / known["scale"])
        check_scores(protocol, scores)
        found.append(
            {
                "name": known["name"], "group": known["group"], "label": known["label"],
                "lesion": lesion, "pixel_mm": known["pixel_mm"], **scores,
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
    scores = protocol.tabulate(predicted, label, video)
    check_metrics(protocol, scores)
    for name in protocol.metrics:
        if np.asarray(scores[name]).dtype.kind not in "biuf":
            raise UsbenchError(f"the score '{name}' holds {np.asarray(scores[name]).dtype}: numbers, or NaN.")
        if np.isinf(np.asarray(scores[name], float)).any():
            raise UsbenchError(f"the score '{name}' is infinite: where it is not defined it is NaN.")
    return pd.DataFrame({**columns, **scores})


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
