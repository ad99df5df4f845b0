"""Vision transformers are networks like any other; each token method equals a slow reference written as loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from lightly.loss import MSNLoss, PMSNLoss
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional
from usbench_tokens.masks import at, blockwise, half_masked, inside, keep, multiblock, random_scores, share

from usbench import Batch, Loss, Network
from usbench.contracts import named, pooled
from usbench.draws import seed_globals
from usbench.errors import UsbenchError
from usbench.hooks import registry
from usbench.train.loop import Compute
from usbench.train.networks import start_from
from usbench.train.pretrain import Part, build_loss
from usbench.train.schedule import Schedule

CPU = torch.device("cpu")
SIZE, PATCH = 32, 8
SIDE = SIZE // PATCH
METHODS = [entry.name for entry in registry().entries("loss") if "tokens" in entry.needs]


pytestmark = pytest.mark.usefixtures("one_thread")


def tiny(**options: Any) -> Network:
    seed_globals("tiny")
    return registry().get("backbone", "vit-tiny").build(**{"dim": 32, "depth": 2, "width": 16, **options})


def build(name: str, **options: Any) -> Loss:
    entry = registry().get("loss", name)
    part = Part(entry, {**entry.options, **options})
    loss = build_loss(part, tiny(), Schedule(10, 64, 1e-3, 0.0, 0.0), Compute(CPU, "float32"), 0)
    for name, parameter in loss.named_parameters():  # a teacher of its own, or its part could not be told
        if name.startswith("teacher_"):
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    return loss


def batch_of(loss: Loss, count: int = 3, step: int = 5) -> Batch:
    """Noise, of which the left three quarters are insonified."""
    source = torch.Generator().manual_seed(1)
    sizes = [SIZE] * sum(loss.views)
    views = [torch.randn(count, 1, size, size, generator=source) for size in sizes]
    sector = torch.zeros(count, 1, SIZE, SIZE)
    sector[..., : SIZE * 3 // 4] = 1
    at = torch.arange(count)
    whole = torch.eye(2, 3).expand(count, 2, 3)
    return Batch(
        views, [whole] * len(views), [sector] * len(views), index=at, label=at, video=at, frame=at[:, None],
        time=at[:, None].float(), tag=at, step=step, total=10, rng=np.random.default_rng(step),
    )  # fmt: skip


def patch(view: Tensor, place: int, size: int = PATCH) -> Tensor:
    """The pixels of a token, row by row."""
    row, column = divmod(place, view.shape[-1] // size)
    return view[0, row * size : (row + 1) * size, column * size : (column + 1) * size].reshape(-1)


# The backbones


@pytest.mark.parametrize("size", [32, 64, 96])
@pytest.mark.parametrize("options", [{}, {"patch": 16}, {"patch": 4}], ids=str)
def test_a_logit_a_pixel_comes_out_at_any_multiple_of_the_patch(options: dict[str, int], size: int) -> None:
    network = tiny(**options)
    side = options.get("patch", 8)
    assert network.stride == side
    maps = network.encoder(torch.randn(2, 1, size, size))
    assert [size // level.shape[-1] for level in maps] == [1, side]
    assert pooled(maps).shape == (2, network.dim)
    assert network.head(network.decoder(maps)).shape == (2, 1, size, size)


def test_it_learns_one_images_mask_in_some_tens_of_steps_and_every_tensor_has_a_part_in_it() -> None:
    network = tiny()
    image, mask = torch.randn(1, 1, SIZE, SIZE), torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 8:20, 10:24] = 1
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(network(image), mask).backward()
        optimizer.step()
    assert ((network(image) > 0) == (mask > 0.5)).float().mean() > 0.99
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@pytest.mark.parametrize(("name", "millions"), [("vit-tiny", 5.5), ("vit-small", 21.6)])
def test_the_encoders_have_the_size_they_are_known_for(name: str, millions: float) -> None:
    encoder = registry().get("backbone", name).build().encoder
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_the_encoder_is_timms() -> None:
    encoder = tiny(patch=16).encoder
    other = VisionTransformer(
        224, 16, in_chans=1, num_classes=0, embed_dim=32, depth=2, num_heads=1, dynamic_img_size=True
    )
    other.load_state_dict(encoder.state_dict())
    images = torch.randn(2, 1, 64, 64)
    assert torch.equal(encoder.tokens(images), other.forward_features(images))
    places = encoder.tokens(images)[1, 1:].unflatten(0, (4, 4))
    assert torch.equal(encoder(images)[1][1, :, 2, 3], places[2, 3])


def test_published_weights_fit_at_their_patch_and_are_refused_at_another(tmp_path: Path) -> None:
    published = timm.create_model("vit_tiny_patch16_224")
    save_file(published.state_dict(), tmp_path / "vit.safetensors")
    entry = registry().get("backbone", "vit-tiny")
    network = entry.build(patch=16)
    report = start_from(network, str(tmp_path / "vit.safetensors"))
    assert report is not None and report.adapted == ("patch_embed.proj.weight",) and not report.unexpected
    assert torch.equal(network.encoder.blocks[3].mlp.fc1.weight, published.blocks[3].mlp.fc1.weight)
    assert network.timm_name == "vit_tiny_patch16_224"
    with pytest.raises(UsbenchError, match=r"'pos_embed' is \(1, 197, 192\), not \(1, 785, 192\)"):
        start_from(entry.build(), str(tmp_path / "vit.safetensors"))


def test_a_patch_that_is_not_kept_is_not_looked_at() -> None:
    encoder = tiny().encoder.eval()
    images = torch.randn(2, 1, SIZE, SIZE)
    everything = torch.arange(SIDE * SIDE).expand(2, -1)
    assert torch.allclose(encoder.tokens(images, keep=everything), encoder.tokens(images), atol=1e-6)
    kept = torch.tensor([[0, 5], [1, 15]])
    before = encoder.tokens(images, keep=kept)
    images[0, :, :, PATCH * 2 :] += 1  # holds neither 0 nor 5
    assert before.shape == (2, 3, 32) and torch.equal(encoder.tokens(images, keep=kept), before)
    images[0, :, :PATCH, :PATCH] += 1
    after = encoder.tokens(images, keep=kept)
    assert not torch.equal(after[0], before[0]) and torch.equal(after[1], before[1])


def test_a_masked_patch_is_not_looked_at_but_its_place_is_known() -> None:
    encoder = tiny().encoder.eval()
    images = torch.randn(1, 1, SIZE, SIZE)
    mask = at(torch.tensor([[0, 5]]), SIDE * SIDE)
    before = encoder.tokens(images, mask=mask, mask_token=torch.zeros(1, 1, 32))
    images[0, :, :PATCH, :PATCH] += 1
    assert torch.equal(encoder.tokens(images, mask=mask, mask_token=torch.zeros(1, 1, 32)), before)
    assert not torch.equal(before[:, 1], before[:, 6])
    assert not torch.equal(encoder.tokens(images, mask=mask, mask_token=torch.ones(1, 1, 32)), before)


@pytest.mark.parametrize(
    "option",
    [{"patch": 7}, {"patch": 64}, {"dim": 30}, {"dim": 100}, {"depth": 0}, {"width": 8}, {"width": 48}],
    ids=str,
)
def test_an_option_out_of_its_range_is_refused(option: dict[str, int]) -> None:
    ((name, value),) = option.items()
    with pytest.raises(UsbenchError, match=f"backbone 'vit-tiny' refuses .*: {name} is {value}: "):
        registry().get("backbone", "vit-tiny").build(**option)


# The masks


def sector_of(columns: list[int], side: int = SIDE) -> Tensor:
    """Tokens of which as many columns as said lie inside, one image each."""
    return (torch.arange(side).repeat(side)[None] < torch.tensor(columns)[:, None]).bool()


def test_a_token_is_inside_when_half_of_it_is() -> None:
    sector = torch.zeros(1, 1, 16, 16)
    sector[..., :12], sector[..., 8:, :] = 1, 0
    sector[..., 8:11, :8] = 1
    assert inside(sector, 8).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.85])
def test_equally_many_tokens_are_kept_of_each_image_and_the_share_of_those_inside_is_right(ratio: float) -> None:
    within = sector_of([0, 1, 3, 7, 8], side=8)
    scores = random_scores(np.random.default_rng(0), 5, 8, CPU)
    kept = keep(scores, within, ratio)
    assert kept.shape == (5, round(ratio * 64)) and torch.equal(kept, kept.sort(1).values)
    marked = at(kept, 64)
    assert (marked.sum(1) == kept.shape[1]).all()
    for image in range(5):
        wanted = ratio * int(within[image].sum())
        assert abs(int((marked[image] & within[image]).sum()) - wanted) <= 1


def test_masked_tokens_lie_inside_and_are_those_with_the_lowest_scores() -> None:
    within = sector_of([0, 1, 3, 4])
    scores = random_scores(np.random.default_rng(0), 4, SIDE, CPU)
    masked = share(scores, within, 0.5)
    for image in range(4):
        lowest = sorted((float(scores[image, i]), i) for i in range(16) if within[image, i])[: len_half(within[image])]
        assert {i for _, i in lowest} == set(masked[image].nonzero()[:, 0].tolist())


def len_half(within: Tensor) -> int:
    return round(0.5 * int(within.sum()))


def test_tokens_of_one_square_have_one_score() -> None:
    scores = random_scores(np.random.default_rng(0), 2, 5, CPU, block=2).view(2, 5, 5)
    assert torch.equal(scores[:, 0, 0], scores[:, 1, 1]) and torch.equal(scores[:, 4, 2], scores[:, 4, 3])
    assert scores.unique().numel() == 2 * 9


def test_blocks_cover_just_the_wanted_share_and_half_of_the_views_have_them() -> None:
    for ratio in (0.01, 0.3, 0.5):
        assert blockwise(np.random.default_rng(0), ratio, 8).sum() == max(1, round(ratio * 64))
    masks = half_masked(np.random.default_rng(0), 7, 8, (0.1, 0.5))
    counts = sorted(masks.sum(1))
    assert counts == [0, 0, 0, 0, 6, round(0.3 * 64), 32]
    assert half_masked(np.random.default_rng(0), 1, 4, (0.1, 0.5)).sum() > 0


@pytest.mark.parametrize("side", [2, 4, 8, 14])
def test_context_and_targets_are_apart_and_targets_are_rectangles_of_one_size(side: int) -> None:
    for seed in range(20):
        context, blocks = multiblock(np.random.default_rng(seed), 6, side, 4)
        assert context.shape[0] == 6 and context.shape[1] >= 1 and blocks.shape[:2] == (6, 4)
        for image in range(6):
            assert len(set(context[image])) == context.shape[1]
            for block in blocks[image]:
                rows, columns = {i // side for i in block}, {i % side for i in block}
                assert len(rows) * len(columns) == len(set(block)) == blocks.shape[2]
                assert max(rows) - min(rows) == len(rows) - 1 and max(columns) - min(columns) == len(columns) - 1
                if side > 2:
                    assert not set(block) & set(context[image])


@pytest.mark.parametrize("name", METHODS)
def test_another_draw_is_another_loss_and_nothing_hangs_on_the_global_generators(name: str) -> None:
    loss = build(name).eval()
    kept = {n: b.clone() for n, b in loss.named_buffers()}

    def value(step: int) -> float:
        for n, b in loss.named_buffers():
            b.copy_(kept[n])
        torch.rand(3)
        batch = batch_of(loss)
        batch.rng = np.random.default_rng(step)
        return float(sum(named(loss(batch)).values()).detach())

    assert value(0) == value(0) != value(1)


# The losses


def test_mae_is_the_squared_error_on_normalised_pixels_of_masked_patches_inside() -> None:
    loss = build("mae")
    batch = batch_of(loss)
    seen = loss.draw(batch)
    assert seen.shape == (3, 4)
    restored, view = loss.restored(batch.views[0], seen), batch.views[0]
    total = count = 0.0
    for image in range(3):
        for place in range(16):
            if place in seen[image] or place % SIDE == 3:  # the last column is not insonified
                continue
            pixels = [float(x) for x in patch(view[image], place)]
            mean = sum(pixels) / len(pixels)
            deviation = math.sqrt(sum((x - mean) ** 2 for x in pixels) / (len(pixels) - 1) + 1e-6)
            error = [
                ((x - mean) / deviation - float(y)) ** 2 for x, y in zip(pixels, restored[image, place], strict=True)
            ]
            total, count = total + sum(error) / len(error), count + 1
    assert count == 3 * 9
    assert float(loss(batch_of(loss))) == pytest.approx(total / count, abs=1e-5)


def test_maes_decoder_is_told_each_place_and_sees_nothing_of_the_masked_ones() -> None:
    loss = build("mae").eval()
    view, seen = batch_of(loss).views[0], torch.tensor([[0, 1, 2, 3]]).expand(3, -1)
    before = loss.restored(view, seen)
    assert not torch.allclose(before[:, 8], before[:, 9], atol=1e-4)
    view[:, :, PATCH:] = 0
    assert torch.equal(loss.restored(view, seen), before)


def test_simmim_is_the_absolute_error_on_masked_pixels() -> None:
    loss = build("simmim")
    batch = batch_of(loss)
    masked, view = loss.draw(batch), batch.views[0]
    assert [int(row.sum()) for row in masked] == [round(0.6 * 12)] * 3
    assert not masked.view(3, SIDE, SIDE)[..., 3].any()
    restored = loss.out(loss.network.encoder.tokens(view, mask=masked, mask_token=loss.mask_token))[:, 1:]
    errors = [
        abs(float(x) - float(y))
        for image in range(3)
        for place in range(16)
        if masked[image, place]
        for x, y in zip(patch(view[image], place), restored[image, place], strict=True)
    ]
    assert float(loss(batch_of(loss))) == pytest.approx(sum(errors) / len(errors), abs=1e-5)


@pytest.mark.parametrize("name", ["mae", "simmim", "ijepa"])
def test_a_batch_without_any_sector_is_worth_nothing_and_breaks_nothing(name: str) -> None:
    loss = build(name)
    batch = batch_of(loss)
    batch.sectors = [0 * sector for sector in batch.sectors]
    assert float(loss(batch)) == 0.0


def test_ijepa_guesses_each_block_from_the_context_as_the_teacher_sees_it_in_the_whole_view() -> None:
    loss = build("ijepa")
    batch = batch_of(loss)
    view, guess = batch.views[0], loss.guess
    context, blocks = multiblock(batch.rng, 3, SIDE, 4)
    places = guess.places(SIDE, CPU)[0]
    errors = []
    for image in range(3):
        one = view[image : image + 1]
        truth = loss.teacher_encoder.tokens(one)[0, 1:]
        tokens = loss.network.encoder.tokens(one, keep=torch.tensor(context[image : image + 1]))[0, 1:]
        known = [guess.entry(token) + places[i] for token, i in zip(tokens, context[image], strict=True)]
        for block in blocks[image]:
            asked = [guess.mask_token[0, 0] + places[i] for i in block]
            said = guess(torch.stack(known + asked)[None])[0, len(known) :]
            for token, i in zip(said, block, strict=True):
                if i % SIDE == 3:
                    continue
                mean, variance = truth[i].mean(), truth[i].var(correction=0)
                far = [abs(float(d)) for d in token - (truth[i] - mean) / (variance + 1e-5).sqrt()]
                errors.append(sum(0.5 * d * d if d < 1 else d - 0.5 for d in far) / len(far))
    assert float(loss(batch_of(loss))) == pytest.approx(sum(errors) / len(errors), abs=1e-5)


def softmax(values: Tensor, temperature: float) -> list[float]:
    scaled = [float(v) / temperature for v in values.double()]
    top = max(scaled)
    below = sum(math.exp(v - top) for v in scaled)
    return [math.exp(v - top) / below for v in scaled]


def cross_entropy(truth: Tensor, said: Tensor, temperature: float) -> float:
    pairs = zip(softmax(truth, temperature), softmax(said, 0.1), strict=True)
    return -sum(p * math.log(q) for p, q in pairs)


@pytest.mark.parametrize("name", ["ibot", "dinov2"])
def test_ibot_and_dinov2_compare_views_and_masked_patches_with_the_teachers_whole_views(name: str) -> None:
    loss = build(name, prototypes=16)
    batch = batch_of(loss)  # half of the training is done: the teacher's temperature stays
    masked, many = loss.draw(batch), 2
    assert masked.any(1).sum() == 3 and not masked.view(6, SIDE, SIDE)[..., 3].any()
    tokens = []
    for view in range(6):
        part = {"mask": masked[view * 3 : view * 3 + 3], "mask_token": loss.mask_token} if view < many else {}
        tokens.append(loss.network.encoder.tokens(batch.views[view], **part))
    truth = [loss.teacher_encoder.tokens(view) for view in batch.views[:many]]
    head, teacher = loss.projector, loss.teacher_projector
    assert (head.patch is head.image) == (name == "ibot")

    image = []
    for t in range(many):
        for s in range(6):
            if s != t:
                for i in range(3):
                    image.append(cross_entropy(teacher.image(truth[t][i, 0]), head.image(tokens[s][i, 0]), 0.07))
    per_image = []
    for view in range(many):
        for i in range(3):
            places = masked[view * 3 + i].nonzero()[:, 0].tolist()
            each = [
                cross_entropy(teacher.patch(truth[view][i, 1 + k]), head.patch(tokens[view][i, 1 + k]), 0.07)
                for k in places
            ]
            per_image.append(sum(each) / max(1, len(each)))
    expected = {"image": sum(image) / len(image), "patch": sum(per_image) / len(per_image)}
    if name == "dinov2":
        spread = 0.0
        for view in range(many):
            unit = [v / v.norm() for v in tokens[view][:, 0]]
            nearest = [min(float((u - v).norm()) for v in unit if v is not u) for u in unit]
            spread -= sum(math.log(d) for d in nearest) / 3 / many
        expected["koleo"] = 0.1 * spread
    got = {key: float(part.detach()) for key, part in loss(batch_of(loss)).items()}
    assert got == pytest.approx(expected, abs=1e-4)
    centre = torch.stack([teacher.image(t[:, 0]) for t in truth]).mean((0, 1))
    assert torch.allclose(loss.between_views.center[0, 0], 0.1 * centre, atol=1e-5)


def test_the_prototypes_hold_still_at_first_and_the_teachers_temperature_rises() -> None:
    loss = build("dinov2")
    for step, still in ((0, True), (5, False)):
        batch = batch_of(loss, step=step)
        sum(loss(batch).values()).backward()
        loss.after_backward(batch)
        found = [p.grad is None for n, p in loss.projector.named_parameters() if n.endswith("prototypes")]
        assert found == [still, still]
    assert loss.temperature(0.0) == 0.04 and loss.temperature(0.15) == pytest.approx(0.055)
    assert loss.temperature(0.3) == loss.temperature(1.0) == 0.07


def test_a_view_whose_mask_lies_outside_the_sector_keeps_it() -> None:
    loss = build("ibot")
    batch = batch_of(loss)
    batch.sectors = [0 * sector for sector in batch.sectors]
    assert loss.draw(batch).any(1).sum() == 3
    assert all(math.isfinite(float(part)) for part in loss(batch).values())


@pytest.mark.parametrize(
    ("name", "criterion"), [("msn", MSNLoss), ("pmsn", lambda t: PMSNLoss(t, power_law_exponent=0.25))]
)
def test_msn_and_pmsn_are_lightlys_on_masked_and_local_anchors_and_a_whole_target(
    name: str, criterion: Callable[[float], torch.nn.Module]
) -> None:
    loss = build(name).eval()
    batch = batch_of(loss)
    seen = loss.draw(batch)
    assert seen.shape == (3, round(0.85 * 16))
    tokens = [loss.network.encoder.tokens(batch.views[1], keep=seen)]
    tokens += [loss.network.encoder.tokens(view) for view in batch.views[2:]]
    anchors = torch.cat([loss.projector(each[:, 0]) for each in tokens])
    target = loss.teacher_projector(loss.teacher_encoder.tokens(batch.views[0])[:, 0])
    expected = criterion(0.1)(anchors, target, loss.prototypes)
    got = loss(batch_of(loss))
    assert float(got.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    got.backward()
    assert loss.prototypes.grad is not None and loss.prototypes.grad.abs().max() > 1e-6


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *((name, {"mask_ratio": value}) for name in ("mae", "simmim", "msn") for value in (0.0, 1.0)),
        ("mae", {"width": 20}), ("mae", {"depth": 0}), ("simmim", {"block": 0}), ("ijepa", {"targets": 0}),
        ("ijepa", {"width": 33}), ("ibot", {"prototypes": 1}), ("dinov2", {"koleo": -1.0}), ("dinov2", {"hidden": 0}),
        ("msn", {"temperature": 0.0}), ("msn", {"prototypes": 1}), ("pmsn", {"power_law": -1.0}),
    ],
)  # fmt: skip
def test_an_option_of_a_loss_out_of_its_range_is_refused_by_name(name: str, option: dict[str, Any]) -> None:
    ((key, value),) = option.items()
    with pytest.raises(UsbenchError, match=f"loss '{name}' refuses .*: {key} is {value}: "):
        build(name, **option)


@pytest.mark.parametrize("name", METHODS)
def test_a_network_without_tokens_is_refused(name: str) -> None:
    with pytest.raises(UsbenchError, match="gives no tokens; vit-tiny and vit-small do"):
        registry().get("loss", name).build(registry().get("backbone", "unet-tiny").build())


def test_what_a_backbone_gives_is_shown(usbench: Callable[..., Any]) -> None:
    assert "gives      tokens" in usbench("plugins", "show", "vit-tiny").out
    assert "gives" not in usbench("plugins", "show", "unet-tiny").out
