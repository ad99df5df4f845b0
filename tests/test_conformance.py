"""The conformance checks: every plugin keeps them, and a planted bug of each kind breaks exactly its promise."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor, nn
from torch.nn import functional

from usbench import Augmentation, Batch, Dataset, Item, Loss, Network, Out, Protocol, UsbenchError
from usbench.conformance import ROOMS, check, checks, promise_of, toy
from usbench.contracts import Labelled
from usbench.data.importing import Case, Importer, Release
from usbench.hooks import Entry, registry

ENTRIES = [entry for entry in registry().entries() if entry.kind != "loss"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_every_registered_plugin_keeps_its_promises(entry: Entry) -> None:
    broken = [f"{verdict.promise}: {verdict.note}" for verdict in check(entry) if not verdict.kept]
    assert not broken


def test_every_check_is_a_promise_in_one_sentence() -> None:
    from usbench import conformance

    for kind in ROOMS:
        functions = conformance._room(kind).CHECKS
        names = [function.__name__ for function in functions]
        assert len(set(names)) == len(names) >= 5
        assert all(20 < len(promise_of(function)) < 120 for function in functions)


def test_checks_come_one_by_one_with_the_same_names_as_their_verdicts() -> None:
    entry = registry().get("augmentation", "spatial")
    assert [name for name, _ in checks(entry)] == [verdict.check for verdict in check(entry)]


def test_a_baseline_has_nothing_to_keep_but_its_summary() -> None:
    assert [name for name, _ in checks(registry().get("loss", "none"))] == ["says_what_it_is"]


def entry_of(kind: str, factory: Callable[..., Any], **more: Any) -> Entry:
    """An entry as `register` makes one, sound but for its factory."""
    return Entry(kind, "toy", factory, "a toy", "Nobody, 2030, https://example.org", "tests", __file__, **more)


def broken_of(kind: str, factory: Callable[..., Any], **more: Any) -> dict[str, str]:
    """The broken promises of a factory: name → what is said."""
    return {verdict.check: verdict.note for verdict in check(entry_of(kind, factory, **more)) if not verdict.kept}


# Losses


class Sound(Loss):
    """A contrast of the student's two views with the teacher's, and a queue of what the teacher said."""

    teacher = (0.9, 1.0)

    def __init__(self, network: Network) -> None:
        super().__init__(network, head=lambda dim: SimCLRProjectionHead(dim, 32, 16))
        self.register_buffer("queue", functional.normalize(torch.randn(12, 16)))

    def remember(self, seen: Tensor) -> Tensor:
        """What was seen before; the newest take the place of the oldest."""
        before = self.queue.clone()
        self.queue.copy_(torch.cat([seen.detach(), before])[: len(before)])
        return before

    def views_of(self, out: Out, batch: Batch) -> tuple[Tensor, Tensor]:
        return out.z[0], out.z[1]

    def objective(self, out: Out, batch: Batch) -> Tensor | Mapping[str, Tensor]:
        one, other = (functional.normalize(z) for z in self.views_of(out, batch))
        taught = [functional.normalize(t) for t in out.t]
        candidates = [torch.cat([t, self.remember(t)]) for t in reversed(taught)]
        target = torch.arange(len(one))
        pairs = zip((one, other), candidates, strict=True)
        return torch.stack([functional.cross_entropy(z @ c.T / 0.2, target) for z, c in pairs]).mean()


class DeadParameter(Sound):
    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.scale = nn.Parameter(torch.ones(()))


class ZeroGradient(DeadParameter):
    def objective(self, out: Out, batch: Batch) -> Tensor:
        return super().objective(out, batch) + 0 * self.scale


class VariesItsParts(Sound):
    def objective(self, out: Out, batch: Batch) -> Mapping[str, Tensor]:
        parts = {"far": super().objective(out, batch)}
        return parts if batch.step else {**parts, "near": torch.zeros(())}


class FrozenTeacher(Sound):
    def update_teacher(self, progress: float) -> None:
        pass


class DeafStudent(Sound):
    """Has a teacher and does not listen."""

    def objective(self, out: Out, batch: Batch) -> Tensor:
        return super().objective(replace(out, t=out.z), batch)


class UnusedView(Sound):
    def look(self, batch: Batch) -> Out:
        return super().look(replace(batch, views=[batch.views[0], batch.views[0].flip(-1)]))


class LostQueue(Sound):
    """Keeps its queue in a list, which no checkpoint holds."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.seen = [torch.zeros(12, 16)]

    def remember(self, seen: Tensor) -> Tensor:
        before = self.seen[0]
        self.seen[0] = torch.cat([seen.detach(), before])[: len(before)]
        return before


class Counts(Sound):
    """Behaves otherwise after so many steps that no check takes as many."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.n = self.make()

    def make(self) -> Any:
        return 0

    def count(self) -> None:
        self.n += 1

    def after_backward(self, batch: Batch) -> None:
        self.count()


class CountsInAList(Counts):
    make, count = list, lambda self: self.n.append(1)


class CountsInAnArray(Counts):
    make, count = lambda self: np.zeros(2), lambda self: np.add(self.n, 1, out=self.n)


class CountsInADict(Counts):
    make, count = lambda self: {"n": [0]}, lambda self: self.n["n"].append(1)


class OwnOptimizer(Counts):
    def make(self) -> Any:
        self.scale = nn.Parameter(torch.ones(()))
        return torch.optim.Adam([self.scale])

    def objective(self, out: Out, batch: Batch) -> Tensor:
        return super().objective(out, batch) * self.scale.clamp(0.9, 1.1)

    def count(self) -> None:
        self.n.step()


class Cache(Counts):
    """What is made again where it is lacking need not be in a checkpoint."""

    def make(self) -> Any:
        self._places = {}
        return 0

    def count(self) -> None:
        self._places.setdefault(32, np.arange(3))


class NotInBf16(Sound):
    def objective(self, out: Out, batch: Batch) -> Tensor:
        rough = out.maps[0][-1].dtype == torch.bfloat16
        return super().objective(out, batch) * (float("nan") if rough else 1.0)


class InFloat32(Sound):
    """Never asks for the harness's precision."""

    def look(self, batch: Batch) -> Out:
        kept, self.autocast = self.autocast, lambda: torch.autocast("cpu", enabled=False)
        try:
            return super().look(batch)
        finally:
            self.autocast = kept


class OwnGenerator(Sound):
    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.rng = np.random.default_rng(0)

    def views_of(self, out: Out, batch: Batch) -> tuple[Tensor, Tensor]:
        noise = torch.from_numpy(self.rng.normal(0, 0.1, out.z[0].shape).astype(np.float32))
        return out.z[0] + noise, out.z[1]


MODULES_OWN = np.random.default_rng(0)


class ModulesGenerator(OwnGenerator):
    """As hidden as it gets: the generator is a global of the module."""

    def __init__(self, network: Network) -> None:
        Sound.__init__(self, network)

    rng = MODULES_OWN


class LabelPeek(Sound):
    def objective(self, out: Out, batch: Batch) -> Tensor:
        same = batch.label[:, None] == batch.label
        return super().objective(out, batch) + 0.1 * (out.z[0] @ out.z[0].T)[same].mean()


class DeclaredAndUnused(Sound):
    pretrain_labels = "all"


class NeedsLabels(Sound):
    """Divides by the number of labelled items, of which there may be none."""

    pretrain_labels = "all"

    def objective(self, out: Out, batch: Batch) -> Tensor:
        known = batch.label >= 0
        return super().objective(out, batch) + 0.1 * out.z[0][known].square().mean() * batch.label.float().argmax()


class EvenOnly(Sound):
    def objective(self, out: Out, batch: Batch) -> Tensor:
        if len(out.z[0]) % 2:
            raise ValueError("the batch must be even")
        return super().objective(out, batch)


class TrainsTheDecoder(Sound):
    def __init__(self, network: Network) -> None:
        super().__init__(network)
        network.encoder.requires_grad_(False)


class HardlyFalls(Sound):
    def objective(self, out: Out, batch: Batch) -> Tensor:
        return super().objective(out, batch) + 100


class Eavesdropper(Sound):
    """Fills its queue from within the encoder, where a rank has its own rows and no others."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        norm = [part for part in network.encoder.modules() if isinstance(part, nn.BatchNorm2d)][-1]
        self.register_buffer("heard", torch.zeros(4, norm.num_features))
        norm.register_forward_hook(self.listen)

    def listen(self, module: nn.Module, given: Any, made: Tensor) -> None:
        self.heard.copy_(torch.cat([made.detach().float().mean((2, 3)), self.heard])[: len(self.heard)])


class SkipsAHook(Sound):
    """Takes its own step, and forgets what the harness does after backward."""

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        loss = self(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}


PLANTED = {
    DeadParameter: ("trains_each_tensor", "'scale' got none"),
    VariesItsParts: ("keeps_its_parts", "at step 1 it has the parts 'far', and had 'far', 'near'"),
    ZeroGradient: ("trains_each_tensor", "'scale' is nothing but zeros"),
    FrozenTeacher: ("moves_the_teacher", "'teacher_encoder."),
    DeafStudent: ("uses_the_teacher", "teacher of zeros"),
    UnusedView: ("uses_each_view", "view 1 may hold anything"),
    LostQueue: (
        "goes_on_from_a_checkpoint",
        "'seen' changed (its type is list) and is in no checkpoint: make it a buffer",
    ),
    Counts: ("goes_on_from_a_checkpoint", "'n' changed from 0 to 4 and is in no checkpoint: make it a buffer, or use"),
    CountsInAList: ("goes_on_from_a_checkpoint", "'n' changed (its type is list)"),
    CountsInAnArray: ("goes_on_from_a_checkpoint", "'n' changed (its type is ndarray)"),
    CountsInADict: ("goes_on_from_a_checkpoint", "'n' changed (its type is dict)"),
    OwnOptimizer: ("goes_on_from_a_checkpoint", "'n' changed (its type is Adam)"),
    NotInBf16: ("bears_bf16", "the loss is nan"),
    InFloat32: ("bears_bf16", "self.autocast()"),
    OwnGenerator: ("draws_from_the_harness", "'rng' is a generator of its own"),
    LabelPeek: ("uses_labels_as_declared", "labels change the loss, and pretrain_labels is 'none'"),
    DeclaredAndUnused: ("uses_labels_as_declared", "no label matters"),
    HardlyFalls: ("falls_on_one_batch", "in 15 steps"),
    SkipsAHook: ("is_the_same_on_two_devices", "is not the same on both ranks after 4 steps"),
    EvenOnly: ("takes_an_odd_batch", "it raised ValueError: the batch must be even (test_conformance.py, line"),
}


def test_a_loss_that_learns_from_labels_is_registered_as_one_that_does() -> None:
    entry = Entry("loss", "quiet", NeedsLabels, "", "", "", __file__)
    with pytest.raises(UsbenchError, match=r"quiet.* add uses=\(\"label\",\)"):
        toy.build(entry)
    assert toy.build(replace(entry, uses=("label",))).pretrain_labels == "all"


def test_a_sound_loss_breaks_nothing() -> None:
    assert broken_of("loss", Sound) == broken_of("loss", Cache) == {}


@pytest.mark.parametrize("loss", PLANTED, ids=lambda loss: loss.__name__)
def test_a_planted_bug_is_reported_as_the_promise_it_breaks_and_no_other(loss: type[Loss]) -> None:
    name, words = PLANTED[loss]
    broken = broken_of("loss", loss, uses=("label",) if loss.pretrain_labels != "none" else ())
    assert list(broken) == [name]
    assert words in broken[name] and "\n" not in broken[name]


def test_a_generator_that_is_hidden_in_a_module_is_found_by_training_twice() -> None:
    assert "trained again with the same seed" in broken_of("loss", ModulesGenerator)["draws_from_the_harness"]


def test_a_queue_filled_from_within_the_encoder_is_found() -> None:
    assert "is not the same on both ranks" in broken_of("loss", Eavesdropper)["is_the_same_on_two_devices"]


def test_a_draw_that_depends_on_the_process_is_found() -> None:
    class OfTheThread(Sound):
        def views_of(self, out: Out, batch: Batch) -> tuple[Tensor, Tensor]:
            towards = torch.ones(16) / 16**0.5
            return functional.normalize(out.z[0]) + (threading.get_ident() >> 8) % 997 / 997 * towards, out.z[1]

    assert broken_of("loss", OfTheThread)["is_the_same_on_two_devices"]


def test_a_batch_without_a_label_that_gives_nan_is_found() -> None:
    assert "the loss is nan where labels" in broken_of("loss", NeedsLabels, uses=("label",))["bears_the_unknown"]


def test_an_encoder_that_is_not_trained_is_found() -> None:
    assert "of the encoder is not trained" in broken_of("loss", TrainsTheDecoder)["trains_only_what_is_inherited"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda self, out, batch: torch.tensor(1.0), "no part depends on anything that is trained"),
        (lambda self, out, batch: out.z[0].sum() * float("nan"), "the part 'loss' is nan"),
        (lambda self, out, batch: out.z[0].mean(1), "the part 'loss' of the loss is (6,), not a scalar"),
        (lambda self, out, batch: {"a": out.z[0].mean().double()}, "the part 'a' is torch.float64"),
        (lambda self, out, batch: {}, "no part at all"),
        (lambda self, out, batch: out.nothing, "has no attribute 'nothing'"),
    ],
)
def test_what_does_not_run_at_all_is_said_once(body: Callable[..., Any], words: str) -> None:
    broken = broken_of("loss", type("Toy", (Sound,), {"objective": body}))
    assert list(broken) == ["gives_named_scalars"] and words in broken["gives_named_scalars"]


def test_a_loss_without_a_summary_or_a_link_is_told_so() -> None:
    entry = replace(entry_of("loss", Sound), summary="", reference="a paper")
    assert {v.check for v in check(entry) if not v.kept} == {"says_what_it_is", "says_where_it_is_from"}


def test_a_loss_without_a_paper_keeps_its_promises() -> None:
    (verdict,) = [
        v for v in check(replace(entry_of("loss", Sound), reference="")) if v.check == "says_where_it_is_from"
    ]
    assert verdict.kept and verdict.note == "it names no paper"


def test_a_loss_whose_parts_are_called_like_columns_of_the_curve_is_refused() -> None:
    def body(self: Loss, out: Out, batch: Batch) -> dict[str, Tensor]:
        return {"step": out.z[0].mean(), "b": out.z[1].mean()}

    broken = broken_of("loss", type("Toy", (Sound,), {"objective": body}))
    assert "a part of the loss is called 'step'" in broken["gives_named_scalars"]


def test_a_loss_that_leaves_the_program_breaks_a_promise() -> None:
    def body(self: Loss, out: Out, batch: Batch) -> Tensor:
        raise SystemExit("bye")

    assert "it raised SystemExit: bye (test_conformance.py, line" in str(
        broken_of("loss", type("Toy", (Sound,), {"objective": body}))
    )


def test_a_failure_in_a_library_is_told_by_the_line_of_the_author() -> None:
    def body(self: Loss, out: Out, batch: Batch) -> Tensor:
        return functional.cosine_similarity(out.z[0], torch.ones(3))

    (said,) = broken_of("loss", type("Toy", (Sound,), {"objective": body})).values()
    line = body.__code__.co_firstlineno + 1
    assert said.endswith(f"(test_conformance.py, line {line})")


def test_a_tensor_made_while_training_is_taken_away_again() -> None:
    class Late(nn.Module):
        matrix: Tensor | None = None

    module = Late()
    before = toy.Snapshot(module)
    module.matrix = torch.ones(2)
    before.restore()
    assert module.matrix is None


def test_a_loss_that_needs_tokens_is_built_on_a_backbone_that_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithTokens:
        kind, name, options, gives = "backbone", "tokens-net", {"dim": 384}, ("tokens",)

    plain = toy.backbone_for(entry_of("loss", Sound))
    known = registry()

    class Both:
        def entries(self, kind: str) -> list[Any]:
            return [plain, WithTokens]

        get = known.get

    monkeypatch.setattr(toy, "registry", Both)
    assert toy.backbone_for(entry_of("loss", Sound, needs=("tokens", "video"))).name == "tokens-net"
    assert toy.backbone_for(entry_of("loss", Sound, needs=("video",))) is plain


# Augmentations


class Gain(Augmentation):
    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        return {"gain": rng.uniform(0.5, 1.0, len(boxes))}

    def forward(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        return images * drawn["gain"].view(-1, 1, 1, 1)


class OneForAll(Gain):
    def forward(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        return images * drawn["gain"][0]


class Noise(Gain):
    def forward(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        return super().forward((images * (1 + 0.1 * torch.rand_like(images))).clamp(0, 1), drawn, sector)


class Hoarder(Gain):
    def __init__(self) -> None:
        super().__init__()
        self.source = np.random.default_rng(0)


class Counting(Gain):
    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        self.n += 1
        return super().draw(rng, boxes, local=local)


class TooBright(Gain):
    def forward(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        return 3 * super().forward(images, drawn, sector)


class InPlace(Gain):
    def forward(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        return images.mul_(drawn["gain"].view(-1, 1, 1, 1))


class Lifts(Gain):
    """Adds light everywhere, also where no echo came from."""

    def forward(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        return (images + 0.1 * drawn["gain"].view(-1, 1, 1, 1)).clamp(0, 1)


class Halves(Gain):
    def forward(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        return super().forward(images, drawn, sector)[..., ::2, ::2]


class EvenSides(Gain):
    def forward(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        side = images.shape[-1]
        return super().forward(images, drawn, sector).view(-1, 1, 2, side // 2, side).view_as(images)


class Folds(Augmentation):
    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        matrix = np.tile(np.eye(3, dtype=np.float32), (len(boxes), 1, 1))
        matrix[:, 0, 0] = 0 if local else 1
        matrix[:, 0, 2] = rng.uniform(-0.1, 0.1, len(boxes))
        return {"affine": matrix}


def test_a_sound_augmentation_breaks_nothing() -> None:
    assert broken_of("augmentation", Gain) == broken_of("augmentation", lambda: [toy.Crop(), Gain()]) == {}


@pytest.mark.parametrize(
    ("step", "name", "words"),
    [
        (OneForAll, "draws_for_each_sample", "copies of an image come out equal"),
        (Noise, "hangs_on_its_draws", "comes out otherwise another time"),
        (Hoarder, "hangs_on_its_draws", "'steps.0.source' is a generator of its own"),
        (Counting, "hangs_on_its_draws", "'steps.0.n' changed from "),
        (TooBright, "keeps_greys_in_range", "not in [0, 1]"),
        (InPlace, "keeps_shape_and_input", "step 1, InPlace, writes into its input"),
        (Lifts, "leaves_what_is_outside", "step 1, Lifts, changes"),
        (EvenSides, "takes_any_size_and_batch", "it raised RuntimeError"),
        (Folds, "crops_with_a_sound_affine", "step 1, Folds, folds a view to nothing"),
    ],
)
def test_a_planted_bug_of_an_augmentation_is_named(step: type[Augmentation], name: str, words: str) -> None:
    broken = broken_of("augmentation", step)
    assert list(broken) == [name] and words in broken[name]


def test_a_step_that_changes_the_shape_is_refused_with_its_name() -> None:
    (said,) = broken_of("augmentation", Halves).values()
    assert said == "augmentation step Halves made (8, 1, 16, 16) of images of (8, 1, 32, 32): it must keep their shape."
    assert "built a dict, no Augmentation" in broken_of("augmentation", dict)["makes_views"]


# Backbones


def convolutions(stride: int = 2, dim: int = 8, classes: int = 1) -> tuple[nn.Module, nn.Module, nn.Module]:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, dim, 3, stride, 1)

        def forward(self, images: Tensor) -> list[Tensor]:
            first = self.first(images).relu()
            return [first, self.second(first).relu()]

    class Decoder(nn.Module):
        def forward(self, maps: list[Tensor]) -> Tensor:
            return functional.interpolate(maps[-1], scale_factor=2.0 * stride)

    return Encoder(), Decoder(), nn.Conv2d(dim, classes, 1)


def sound_network() -> Network:
    return Network(*convolutions(), dim=8, stride=4)


def unused_parameter() -> Network:
    network = sound_network()
    network.encoder.extra = nn.Linear(2, 2)
    return network


def coarse_map_first() -> Network:
    network = sound_network()
    forward = network.encoder.forward
    network.encoder.forward = lambda images: [functional.avg_pool2d(forward(images)[-1], 2), forward(images)[-1]]
    return network


def own_start() -> Network:
    network = sound_network()
    nn.init.uniform_(network.head.weight, -0.1, float(MODULES_OWN.uniform(0.1, 0.2)))
    return network


def test_a_sound_backbone_breaks_nothing() -> None:
    assert broken_of("backbone", sound_network) == {}


@pytest.mark.parametrize(
    ("factory", "name", "words"),
    [
        (lambda: Network(*convolutions(), dim=9, stride=4), "gives_a_logit_a_pixel", "says dim=9, and its deepest"),
        (lambda: Network(*convolutions(classes=3), dim=8, stride=4), "gives_a_logit_a_pixel", "makes (1, 3, 32, 32)"),
        (coarse_map_first, "has_maps_at_growing_strides", "strides [8.0, 4.0]"),
        (unused_parameter, "gives_each_tensor_a_gradient", "'encoder.extra.bias', 'encoder.extra.weight' gets none"),
        (own_start, "starts_from_the_seed", "'head.weight' differs"),
        (
            lambda: Network(*convolutions(), dim=8, stride=4, timm_name="resnet17"),
            "names_its_published_weights", "no model 'resnet17'",
        ),
        (nn.Identity, "gives_a_logit_a_pixel", "stride"),
    ],
)  # fmt: skip
def test_a_planted_bug_of_a_backbone_is_named(factory: Callable[[], Any], name: str, words: str) -> None:
    broken = broken_of("backbone", factory)
    assert list(broken) == [name] and words in broken[name]


# Data sets


class Tiles(Dataset):
    source, licence, citation, classes = "a test", "CC0", "nobody", ("plain",)
    facts: ClassVar[dict[str, Any]] = {}

    def items(self, path: Path | None) -> Iterator[Item]:
        rng = np.random.default_rng(0)
        for place in range(10):
            image = rng.integers(0, 256, (40, 40), dtype=np.uint8)
            yield Item(**{"name": f"t{place}", "image": image, "mask": image > 128, "label": 0, **self.facts})


class Restless(Tiles):
    def items(self, path: Path | None) -> Iterator[Item]:
        for item in super().items(path):
            yield replace(item, image=MODULES_OWN.integers(0, 256, (40, 40), dtype=np.uint8))


class Greedy(Importer):
    """Takes an empty folder for its release."""

    source, licence, citation, layout = "a test", "CC0", "nobody", r"\w+\.png"

    def recognises(self, path: Path) -> bool:
        return True

    def cases(self, release: Release) -> Iterator[Case]:
        yield from ()


class Careless(Greedy):
    recognises = Dataset.recognises

    def count(self, path: Path | None) -> int | None:
        return None

    def items(self, path: Path | None) -> Iterator[Item]:
        yield from ()


@pytest.mark.parametrize(
    ("factory", "generated", "name", "words"),
    [
        (type("T", (Tiles,), {"licence": " "}), True, "says_where_it_is_from", "no 'licence'"),
        (type("T", (Tiles,), {"facts": {"label": 1}}), True, "makes_a_sound_pack", "the label of 't0' is 1"),
        (type("T", (Tiles,), {"facts": {"name": "same"}}), True, "makes_a_sound_pack", "same"),
        (Restless, True, "makes_the_same_again", "image of 't0' differs"),
        (Greedy, False, "refuses_an_empty_folder", "recognises an empty folder"),
        (Careless, False, "refuses_an_empty_folder", "it imports 0 images from an empty folder"),
        (
            type("T", (Greedy,), {"layout": "", "recognises": Dataset.recognises}),
            False,
            "says_how_its_images_lie",
            "no",
        ),
    ],
    ids=str,
)
def test_a_planted_bug_of_a_data_set_is_named(factory: Any, generated: bool, name: str, words: str) -> None:
    broken = broken_of("dataset", factory, generated=generated)
    assert name in broken and words in broken[name]
    assert len(broken) == 1 or name == "says_how_its_images_lie"
    assert broken_of("dataset", Tiles, generated=True) == {}


# Protocols


class Threshold(Protocol):
    metrics, primary = ("overlap",), "overlap"

    def objective(self, output: Tensor, batch: Labelled) -> Tensor:
        return functional.binary_cross_entropy_with_logits(output, batch.mask)

    def inner(self, output: Tensor, batch: Labelled) -> Tensor:
        return ((output > 0) == (batch.mask > 0.5)).float().mean((1, 2, 3))

    def predict(self, output: Tensor, size: int) -> Tensor:
        return functional.interpolate(output, size=(size, size))[:, 0] > 0

    def score(self, predicted: np.ndarray, truth: np.ndarray, spacing: float) -> dict[str, float]:
        return {"overlap": float((predicted == truth).mean())}


def test_a_sound_protocol_breaks_nothing() -> None:
    assert broken_of("protocol", Threshold) == {}


def test_a_metric_need_not_be_defined_for_an_empty_mask() -> None:
    def near(self: Any, predicted: np.ndarray, truth: np.ndarray, spacing: float) -> dict[str, float]:
        both = predicted.any() and truth.any()
        return {"overlap": float((predicted == truth).mean()) if both else float("nan")}

    def far(*given: Any) -> dict[str, float]:
        return {"overlap": -near(*given)["overlap"]}

    assert broken_of("protocol", type("Toy", (Threshold,), {"score": near})) == {}
    broken = broken_of("protocol", type("Toy", (Threshold,), {"score": far}))
    assert "of a perfect mask is -1, and of one beside it" in broken["scores_what_it_names"]


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"primary": "dice"}, "scores_what_it_names", "has primary 'dice': it is one of its metrics"),
        ({"metrics": ("overlap", "dice")}, "scores_what_it_names", "a score has ['overlap'], not"),
        ({"metrics": ("overlap", "group")}, "scores_what_it_names", "scores 'group', and a column of scores.csv has"),
        (
            {"score": lambda self, *planes: {**Threshold.score(self, *planes), "lesion": 1.0}},
            "scores_what_it_names", "scores 'lesion'",
        ),
        (
            {"score": lambda self, *planes: {"overlap": "good"}},
            "scores_what_it_names", "the score 'overlap' is 'good' (str): give a number, or NaN",
        ),
        (
            {"score": lambda self, *planes: {"overlap": 1 - Threshold.score(self, *planes)["overlap"]}},
            "scores_what_it_names", "'overlap' of a perfect mask is 0, and of an empty one",
        ),
        (
            {"inner": lambda self, output, batch: -self.objective(output, batch)},
            "scores_each_image_inside", "for 8 images it is ()",
        ),
        ({"predict": lambda self, output, size: output[:, 0] > 0}, "predicts_masks_of_the_packs_size", "(8, 32, 32)"),
        ({"objective": lambda self, output, batch: output.mean((1, 2, 3))}, "gives_a_scalar_objective", "(8,)"),
    ],
)  # fmt: skip
def test_a_planted_bug_of_a_protocol_is_named(changes: dict[str, Any], name: str, words: str) -> None:
    broken = broken_of("protocol", type("Toy", (Threshold,), changes))
    assert list(broken) == [name] and words in broken[name]


def test_a_factory_that_refuses_its_defaults_is_said_once() -> None:
    def picky(network: Network) -> None:
        raise ValueError("no")

    with pytest.raises(UsbenchError, match="refuses its defaults: no"):
        functools.partial(entry_of("loss", picky).build, None)()
    assert broken_of("loss", picky) == {"gives_named_scalars": "loss 'toy' refuses its defaults: no"}
