"""What any pretraining method must keep, whoever wrote it. A check's docstring is the promise."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from usbench.conformance import toy
from usbench.conformance.loss_bench import Bench, plain_contrast
from usbench.conformance.promise import listed, require, says_what_it_is
from usbench.conformance.repeats import draws_from_the_harness, goes_on_from_a_checkpoint, is_the_same_on_two_devices
from usbench.contracts import Batch, Clip, named
from usbench.draws import seed_globals
from usbench.train import checkpoint
from usbench.train.loop import Compute

LEAST = 1e-7  # a gradient below this is rounding
FALL_STEPS, FALL = 15, 0.1  # a tenth in so many steps on one batch


def says_where_it_is_from(bench: Bench) -> str:
    """The paper that it names has a link."""
    if not bench.entry.reference:
        return "it names no paper"
    require("https://" in bench.entry.reference, "its reference has no https:// link")
    return ""


def gives_named_scalars(bench: Bench) -> None:
    """From one grey channel it makes named float32 scalars that are finite and have a gradient."""
    before = toy.Snapshot(bench.loss)
    try:
        parts = named(bench.loss(toy.batch_of(bench.loss)))
        for name, part in parts.items():
            require(part.dtype == torch.float32, f"the part '{name}' is {part.dtype}")
            require(torch.isfinite(part), f"the part '{name}' is {part.item()}")
        # A part may be without gradient where the method freezes or reports something; their sum may not.
        require(any(part.requires_grad for part in parts.values()), "no part depends on anything that is trained")
    finally:
        before.restore()


def keeps_its_parts(bench: Bench) -> None:
    """What it gives has the same names at each step."""
    first, *later = bench.history.parts
    for step, names in enumerate(later, 1):
        require(names == first, f"at step {step} it has the parts {listed(names)}, and had {listed(first)}")


def trains_each_tensor(bench: Bench) -> None:
    """Each tensor that the optimiser sees gets a gradient within a few steps."""
    largest = bench.history.gradients
    never = [name for name, most in largest.items() if most < 0]
    require(not never, f"{listed(never)} got none in {toy.STEPS} steps")
    # A norm or a softmax after it takes a bias away again, and leaves nothing but rounding.
    dead = [name for name, most in largest.items() if most < LEAST and not name.endswith("bias")]
    require(not dead, f"the gradient of {listed(dead)} is nothing but zeros")


def trains_only_what_is_inherited(bench: Bench) -> None:
    """The encoder is trained, decoder and head only where `transfer` is "network", and the teacher never."""
    loss = bench.loss
    seen = {id(p) for group in toy.optimizer_of(loss).param_groups for p in group["params"]}
    frozen = [name for name, p in loss.network.encoder.named_parameters() if id(p) not in seen]
    require(not frozen, f"{listed(frozen)} of the encoder is not trained")
    rest = [*loss.network.decoder.parameters(), *loss.network.head.parameters()]
    trained = any(id(p) in seen for p in rest)
    require(trained == (loss.transfer == "network"), f"transfer is '{loss.transfer}', decoder trained: {trained}")
    taught = [name for name, p in toy.teacher_of(loss).items() if id(p) in seen or p.requires_grad]
    require(not taught, f"the teacher's {listed(taught)} is trained by gradient")


def moves_the_teacher(bench: Bench) -> str:
    """Each tensor of the teacher moves."""
    require((bench.loss.teacher is None) == (not bench.history.teacher), "its teacher is not the harness's")
    still = [name for name, moved in bench.history.teacher.items() if not moved]
    require(not still, f"{listed(still)} stayed as it was for {toy.STEPS} steps")
    return "" if bench.history.teacher else "no teacher"


def uses_the_teacher(bench: Bench) -> str:
    """What the teacher says changes the loss."""
    teacher = toy.teacher_of(bench.loss)
    if not teacher:
        return "no teacher"
    before, kept = bench.value(), toy.Snapshot(bench.loss)
    try:
        with torch.no_grad():
            for p in teacher.values():
                p.zero_()
        without = bench.value()
    finally:
        kept.restore()
    require(abs(without - before) > 1e-3, f"with a teacher of zeros the loss stays {before:.6g}")
    return ""


def uses_each_view(bench: Bench) -> None:
    """Each view matters to the loss.

    That is judged at the last step: a curriculum may leave a view out before.
    """
    with bench.still_norms():
        before = bench.value(step=toy.STEPS - 1)
        for place in range(sum(bench.loss.views) * len(bench.loss.item.roles)):

            def change(batch: Batch, place: int = place) -> Batch:
                batch.views[place] = batch.views[place].flip((0, -1))
                return batch

            moved = abs(bench.value(change, step=toy.STEPS - 1) - before)
            require(moved > 1e-6 * abs(before), f"view {place} may hold anything: the loss stays {before:.6g}")


def uses_labels_as_declared(bench: Bench) -> str:
    """Labels matter to a loss that declares `pretrain_labels`, and to no other; tags likewise, or named in `needs`."""
    if not bench.repeats:
        return NOT_REPEATED
    before = bench.value()
    by_label = bench.value(lambda batch: replace(batch, label=batch.label.sort()[0])) != before
    by_tag = bench.value(lambda batch: replace(batch, tag=batch.tag.sort()[0])) != before
    declared, needs = bench.loss.pretrain_labels != "none", bench.entry.needs
    require(declared or not by_label, "labels change the loss, and pretrain_labels is 'none'")
    require(
        declared or not by_tag or "tag" in needs, "tags change the loss, and neither pretrain_labels nor needs say so"
    )
    require(
        by_label or by_tag or not declared, f"pretrain_labels is '{bench.loss.pretrain_labels}', and no label matters"
    )
    return ""


def bears_the_unknown(bench: Bench) -> None:
    """What `needs` does not name may be unknown: label and tag of all items, video and time where it is no clip."""
    needs = bench.entry.needs

    def change(batch: Batch) -> Batch:
        clip = isinstance(bench.loss.item, Clip)
        return replace(
            batch, label=torch.full_like(batch.label, -1),
            tag=batch.tag if "tag" in needs else torch.full_like(batch.tag, -1),
            video=batch.video if clip or "video" in needs else torch.full_like(batch.video, -1),
            time=batch.time if "time" in needs else torch.full_like(batch.time, math.nan),
        )  # fmt: skip

    found = bench.value(change)
    require(math.isfinite(found), f"the loss is {found} where labels, tags, videos and times are unknown")


def bears_bf16(bench: Bench) -> None:
    """In bf16 its networks run in bf16, the loss stays near that of float32, and nothing becomes NaN or infinite."""
    loss, exact = bench.loss, bench.value()
    kept, loss.autocast = loss.autocast, Compute(toy.CPU, "bf16").autocast
    try:
        rough = bench.value()
        require(math.isfinite(rough), f"the loss is {rough}")
        require(exact != rough or not bench.repeats, "its networks run in float32: use self.autocast() around them")
        require(abs(rough - exact) <= max(0.1, 0.1 * abs(exact)), f"the loss is {rough:.6g}, in float32 {exact:.6g}")

        def run(optimizer: torch.optim.Optimizer) -> tuple[list[float], list[str]]:
            values = toy.train(loss, optimizer, range(3))
            return values, [n for n, t in checkpoint.tensors_of(loss).items() if not torch.isfinite(t).all()]

        values, wrong = bench.trial(run)
    finally:
        loss.autocast = kept
    require(all(map(math.isfinite, values)), f"the losses of three steps are {values}")
    require(not wrong, f"{listed(wrong)} is not finite after three steps")


def takes_an_odd_batch(bench: Bench) -> None:
    """It trains on an odd batch."""
    _trains_on(bench, max(5, bench.loss.min_batch | 1))


def takes_its_least_batch(bench: Bench) -> None:
    """It trains on a batch of `min_batch` items."""
    _trains_on(bench, bench.loss.min_batch)


def _trains_on(bench: Bench, count: int) -> None:
    def run(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[Tensor]]:
        parts = bench.loss.step(toy.batch_of(bench.loss, count=count), optimizer)
        return parts, [p.grad for p in bench.loss.network.encoder.parameters() if p.grad is not None]

    parts, gradients = bench.trial(run)
    wrong = [name for name, part in parts.items() if not torch.isfinite(part)]
    require(not wrong, f"with {count} items the part {listed(wrong)} is not finite")
    require(all(torch.isfinite(g).all() for g in gradients), f"with {count} items a gradient is not finite")
    most = max((float(g.abs().max()) for g in gradients), default=0.0)
    require(most > LEAST, f"with {count} items the encoder gets no gradient")


def falls_on_one_batch(bench: Bench) -> None:
    """The loss of one batch, trained on again and again, falls."""
    loss = bench.loss
    memory = {name: buffer.clone() for name, buffer in loss.named_buffers()}

    def run(optimizer: torch.optim.Optimizer) -> list[float]:
        found: list[float] = []
        for step in range(FALL_STEPS):
            # A queue would fill with this very batch, and make the task harder: it stays as it was.
            checkpoint.restore(loss, dict(loss.named_parameters()) | memory)
            seed_globals("fixed")
            found.append(float(sum(loss.step(toy.batch_of(loss), optimizer).values())))
            loss.update_teacher(step / (FALL_STEPS - 1))
            if _fallen(found):
                break
        return found

    found = bench.trial(run)
    require(_fallen(found), f"it goes from {found[0]:.6g} to {found[-1]:.6g} in {FALL_STEPS} steps")


def _fallen(found: list[float]) -> bool:
    return len(found) > 3 and max(found[-3:]) < found[0] - FALL * abs(found[0])


def costs(bench: Bench) -> str:
    """Its cost is told: parameters beside the network's, and the time of a step."""
    own = sum(p.numel() for p in bench.loss.parameters()) - sum(p.numel() for p in bench.loss.network.parameters())
    step, plain = bench.history.typical_seconds, plain_contrast(toy.needs_of_backbone(bench.entry)).typical_seconds
    return f"{own / 1e6:.2f} M parameters of its own, a step {1e3 * step:.0f} ms, {step / plain:.1f} × a plain contrast"


NOT_REPEATED = "not judged: one batch gives two values"
CHECKS = (
    says_what_it_is, gives_named_scalars, says_where_it_is_from, keeps_its_parts, trains_each_tensor,
    trains_only_what_is_inherited,
    moves_the_teacher, uses_the_teacher, uses_each_view, uses_labels_as_declared, bears_the_unknown, bears_bf16,
    takes_an_odd_batch, takes_its_least_batch, draws_from_the_harness, goes_on_from_a_checkpoint,
    is_the_same_on_two_devices, falls_on_one_batch, costs,
)  # fmt: skip
