"""What a protocol may score, and what it may not: a row an image whose own columns nobody overwrites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from usbench_segment.protocol import Segment

from usbench import Protocol
from usbench.data.feed import Feed
from usbench.data.pack import Pack
from usbench.errors import UsbenchError
from usbench.evaluate.testing import TAKEN, predicted_of, score_images, tabulate_images


class Says(Protocol):
    """Scores whatever it is told to."""

    metrics, primary = ("edge",), "edge"

    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said

    def score(self, predicted: np.ndarray, truth: np.ndarray, spacing: float) -> dict[str, float]:
        return self.said

    def tabulate(self, predicted: np.ndarray, label: np.ndarray, video: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.array([value] * len(label)) for name, value in self.said.items()}


def scored(protocol: Protocol, path: Path) -> Any:
    pack = Pack(path)
    return score_images(protocol, pack.plane("mask", np.arange(3)), pack, np.arange(3))


def tabulated(protocol: Protocol, path: Path) -> Any:
    pack = Pack(path)
    return tabulate_images(protocol, np.zeros((3, 2)), Feed([(pack, np.arange(3))], 32, torch.device("cpu")))


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("how", [scored, tabulated])
def test_a_score_called_like_a_column_of_the_harness_is_refused(tiny_pack: Path, how: Any, name: str) -> None:
    with pytest.raises(UsbenchError, match=f"a protocol scores '{name}', and a column of scores.csv has that name"):
        how(Says({"edge": 1.0, name: 0.5}), tiny_pack)


@pytest.mark.parametrize("value", ["good", None, torch.tensor(1.0), np.ones(2)], ids=lambda value: type(value).__name__)
def test_a_score_that_is_no_number_is_refused(tiny_pack: Path, value: Any) -> None:
    with pytest.raises(
        UsbenchError, match=f"the score 'edge' is .* \\({type(value).__name__}\\): give a number, or NaN"
    ):
        scored(Says({"edge": value}), tiny_pack)


def test_a_table_of_texts_is_no_metric_but_may_stand_beside_one(tiny_pack: Path) -> None:
    with pytest.raises(UsbenchError, match="the score 'edge' holds "):
        tabulated(Says({"edge": "good"}), tiny_pack)
    assert tabulated(Says({"edge": 0.5, "remark": "good"}), tiny_pack).remark.tolist() == ["good"] * 3


@pytest.mark.parametrize("how", [scored, tabulated])
def test_a_score_is_never_infinite(tiny_pack: Path, how: Any) -> None:
    with pytest.raises(UsbenchError, match=r"the score 'edge' is inf.*NaN"):
        how(Says({"edge": float("inf")}), tiny_pack)


class Predicts(Protocol):
    """Predicts whatever it is told to."""

    def __init__(self, said: Any, *, masks: bool) -> None:
        self.said, self.masks = said, masks

    def predict(self, output: torch.Tensor, size: int) -> Any:
        return self.said


@pytest.mark.parametrize(
    ("said", "masks"),
    [
        (torch.ones(3, 1, 1, dtype=torch.bool), True), (torch.ones(3, 1, 8, 8, dtype=torch.bool), True),
        (torch.ones(3, 4, 4, dtype=torch.bool), True), (torch.ones(3, 8, 8), True), (np.ones((3, 8, 8), bool), True),
        (torch.ones(2, 8, 8, dtype=torch.bool), True), (torch.ones(3), False), (torch.ones(1, 4), False),
    ],
)  # fmt: skip
def test_a_prediction_of_another_form_is_refused_and_never_broadcast(said: Any, masks: bool) -> None:
    with pytest.raises(UsbenchError, match="the protocol predicts "):
        predicted_of(Predicts(said, masks=masks), torch.zeros(3, 1, 4, 4), 8)


@pytest.mark.parametrize("how", [scored, tabulated])
def test_a_score_without_a_metric_is_refused(tiny_pack: Path, how: Any) -> None:
    with pytest.raises(UsbenchError, match="a score has other, and no 'edge'"):
        how(Says({"other": 1.0}), tiny_pack)


def test_a_score_that_is_no_dict_is_refused(tiny_pack: Path) -> None:
    with pytest.raises(UsbenchError, match="a score is a tuple: give a dict"):
        scored(Says((1.0, 1.0)), tiny_pack)


@pytest.mark.parametrize("value", [1, 0.5, True, np.float32(0.5), np.int64(1), np.bool_(True), float("nan")])
def test_every_kind_of_number_is_a_score(tiny_pack: Path, value: Any) -> None:
    assert len(scored(Says({"edge": value}), tiny_pack)) == 3


def test_the_scores_of_our_own_stand_beside_who_the_image_is(tiny_pack: Path) -> None:
    table = scored(Segment(), tiny_pack)
    assert list(table.columns[:5]) == ["name", "group", "label", "lesion", "pixel_mm"] and (table.dice == 1).all()
