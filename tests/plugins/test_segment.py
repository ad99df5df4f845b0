"""The segmentation protocol: what is trained, what chooses the step, and the mask that is judged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from usbench_segment.protocol import Segment, soft_dice

from usbench.contracts import Labelled
from usbench.hooks import Registry
from usbench.train.passes import train_mode


def logits(count: int = 3, size: int = 6) -> Tensor:
    return 2 * torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(0))


def masks(count: int = 3, size: int = 6) -> Tensor:
    mask = torch.zeros(count, 1, size, size)
    for i in range(count):
        mask[i, 0, 1 : 3 + i % 3, 2:5] = 1.0
    return mask


def batch_of(mask: Tensor) -> Labelled:
    return Labelled(torch.zeros_like(mask), mask, torch.zeros(len(mask), dtype=torch.long))


def test_the_objective_is_dice_of_each_image_and_cross_entropy_of_each_pixel() -> None:
    output, mask = logits(), masks()
    mask[0, 0, 1, 1] = 0.3  # a resampled mask has soft edges
    dice = entropy = 0.0
    for image, truth in zip(output[:, 0].tolist(), mask[:, 0].tolist(), strict=True):
        both = predicted = true = 0.0
        for row, true_row in zip(image, truth, strict=True):
            for x, y in zip(row, true_row, strict=True):
                p = 1 / (1 + math.exp(-x))
                both, predicted, true = both + p * y, predicted + p, true + y
                entropy -= (y * math.log(p) + (1 - y) * math.log(1 - p)) / mask.numel()
        dice += (2 * both + 1) / (predicted + true + 1) / len(mask)
    got = Segment().objective(output, batch_of(mask))
    assert float(got) == pytest.approx(1 - dice + entropy, abs=1e-5)


def test_every_image_weighs_the_same_in_the_dice_however_large_its_lesion() -> None:
    probability, mask = torch.zeros(2, 1, 40, 40), torch.zeros(2, 1, 40, 40)
    mask[0, :, :30, :30] = probability[0, :, :30, :30] = 1.0
    mask[1, :, 5:10, 5:10] = 1.0  # found not at all
    assert soft_dice(probability, mask).tolist() == pytest.approx([1.0, 1 / 26])


def test_an_empty_prediction_of_an_empty_mask_is_right() -> None:
    assert soft_dice(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).item() == 1.0


def test_the_objective_falls_where_the_output_nears_the_mask() -> None:
    mask = masks()
    worse, better, best = (float(Segment().objective(k * (mask - 0.5), batch_of(mask))) for k in (-1, 1, 20))
    assert worse > better > best and best < 0.01


def test_the_inner_score_is_the_dice_of_the_hard_mask_and_nan_for_a_normal_image() -> None:
    output, mask = logits(4), masks(4)
    mask[2] = 0.0
    mask[0, 0, 1, 1], mask[0, 0, 0, 0] = 0.6, 0.4  # a soft edge is cut at one half
    scores = Segment().inner(output, batch_of(mask)).tolist()
    assert [math.isnan(score) for score in scores] == [False, False, True, False]
    for i in (0, 1, 3):
        both = predicted = true = 0
        for x, y in zip(output[i].flatten().tolist(), mask[i].flatten().tolist(), strict=True):
            both, predicted, true = both + (x > 0 and y > 0.5), predicted + (x > 0), true + (y > 0.5)
        assert scores[i] == pytest.approx((2 * both + 1) / (predicted + true + 1), abs=1e-6)


def test_the_inner_score_does_not_see_how_sure_the_network_is() -> None:
    output, mask = logits(), masks()
    assert torch.equal(Segment().inner(output, batch_of(mask)), Segment().inner(9 * output, batch_of(mask)))


def test_the_prediction_is_the_logits_at_the_packs_size_cut_at_one_half() -> None:
    output = logits(2, 6)
    full = Segment().predict(output.bfloat16(), 15)
    assert full.shape == (2, 15, 15) and full.dtype == torch.bool
    values = output.bfloat16().float()[:, 0].numpy()
    checked = 0
    for row in range(15):
        for column in range(15):
            y, x = (min(max((at + 0.5) * 6 / 15 - 0.5, 0), 5) for at in (row, column))
            top, left = min(int(y), 4), min(int(x), 4)
            down, right = y - top, x - left
            corner = values[:, top : top + 2, left : left + 2]
            blend = np.outer([1 - down, down], [1 - right, right])
            expected = (corner * blend).sum((1, 2))
            sure = np.abs(expected) > 1e-4
            assert (full[:, row, column].numpy() == (expected > 0))[sure].all()
            checked += int(sure.sum())
    assert checked > 440


def test_at_its_own_size_the_prediction_is_the_sign_of_the_logits() -> None:
    output = logits()
    assert torch.equal(Segment().predict(output, 6), output[:, 0] > 0)


def test_an_image_is_scored_by_every_metric_that_is_declared(installed: Registry) -> None:
    protocol = installed.get("protocol", "segment").build()
    truth = masks(1, 20)[0, 0].numpy() > 0
    scores = protocol.score(truth, truth, 1.0)
    assert set(protocol.metrics) <= scores.keys() and protocol.primary in protocol.metrics
    assert scores["dice"] == 1.0
    assert installed.get("protocol", "segment").needs == protocol.needs == ("mask",)


def test_distances_are_in_native_pixels() -> None:
    truth, predicted = np.zeros((20, 20), np.bool_), np.zeros((20, 20), np.bool_)
    truth[5:10, 5:10] = predicted[5:10, 7:12] = True
    one, three = (Segment().score(predicted, truth, spacing) for spacing in (1.0, 3.0))
    assert one["hd95"] > 0 and three["hd95"] == pytest.approx(3 * one["hd95"])
    assert three["dice"] == one["dice"]


def test_a_frozen_encoder_is_not_trained_and_the_decoder_is(installed: Registry) -> None:
    network = installed.get("backbone", "unet-tiny").build()
    model = installed.get("protocol", "segment-frozen").build().adapt(network)
    assert not any(p.requires_grad for p in network.encoder.parameters())
    assert all(p.requires_grad for part in (network.decoder, network.head) for p in part.parameters())
    assert train_mode(model) and not network.encoder.training and network.decoder.training
