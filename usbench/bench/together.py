"""`together`: several small fine-tunes as one model whose weights are stacked, against one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from usbench.bench.lines import Case, Line
from usbench.bench.setting import Setting
from usbench.bench.subject import finetuning
from usbench.bench.timing import Work, in_turns
from usbench.contracts import Labelled
from usbench.train import finetune

ON_GPU, ON_CPU = (2, 4, 8, 16), (2, 4)  # fine-tunes
SHARE = 10  # of the steps of `several` that a turn has


def measure(setting: Setting) -> Iterator[Line]:
    """Every number of fine-tunes as small as a leaderboard's, in the run's precision and in float32."""
    wide = setting.widened("several")
    for precision in dict.fromkeys((wide.precision, "float32")):
        for count in ON_CPU[:1] if wide.quick else ON_GPU if wide.device == "cuda" else ON_CPU:
            with TemporaryDirectory() as folder:
                yield from compare(wide, precision, count, Path(folder))


def compare(setting: Setting, precision: str, count: int, folder: Path) -> Iterator[Line]:
    """The same batches for both; each fine-tune has its own."""
    case = Case("together", setting.sizes[0], setting.backbones[0], setting.tuned_batch, precision)
    each = fine_tunes(setting, precision, count, folder)
    stacked = Stacked(each)
    steps = max(1, setting.steps // SHARE)

    def apart() -> int:
        for one in each:
            for step in range(steps):
                one.learn(one.batch_of(step))
        return steps * count

    def together() -> int:
        for step in range(steps):
            stacked.learn([one.batch_of(step) for one in each])
        return steps * count

    sides: dict[str, Work] = {"apart": apart, "stacked": together}
    try:
        found = in_turns(sides, torch.device(setting.device), setting.turns)
    except RuntimeError as error:  # not every operation can be stacked in every precision on every device
        yield Line(case, f"{count} stacked", note=f"not measured: {' '.join(str(error).split())}")
        return
    yield Line(case, f"{count} apart", found["apart"], note="one after the other; a step of one of them")
    yield Line(
        case, f"{count} stacked", found["stacked"],
        ratio=found["apart"].over(found["stacked"]), ratio_of="apart / stacked",
        note="one model, gradients by torch.func.vmap over stacked weights, one fused AdamW; a step of one of them",
    )  # fmt: skip


def fine_tunes(setting: Setting, precision: str, count: int, folder: Path) -> list[finetune.Steps]:
    """So many, each with a seed of its own."""
    each: list[finetune.Steps] = []
    for seed in range(count):
        own = folder / str(seed)
        own.mkdir()
        subject = finetuning(setting, setting.backbones[0], setting.sizes[0], own, precision=precision, seed=seed)
        assert isinstance(subject.steps, finetune.Steps)
        each.append(subject.steps)
    return each


class Stacked:
    """Fine-tunes of one architecture whose weights lie stacked: each learns from its own batch, as it would alone."""

    def __init__(self, each: list[finetune.Steps]) -> None:
        self.first = each[0]
        self.weights, self.buffers = stack_module_state([one.model for one in each])
        places = {id(parameter): name for name, parameter in self.first.model.named_parameters()}
        rows = [
            {**group, "params": [self.weights[places[id(parameter)]] for parameter in group["params"]]}
            for group in self.first.optimizer.param_groups
        ]
        self.optimizer = torch.optim.AdamW(rows, fused=True)
        self.gradient = vmap(grad_and_value(self.loss), randomness="different")

    def loss(self, weights: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor, mask: Tensor) -> Tensor:
        """Of one of them."""
        with self.first.compute.autocast():
            output = functional_call(self.first.model, (weights, buffers), (images,))
        return self.first.protocol.objective(output.float(), Labelled(images, mask, images.new_zeros(len(images))))

    def learn(self, batches: list[Labelled]) -> Tensor:
        """A step of all of them; returns the loss of each."""
        images = torch.stack([batch.images for batch in batches])
        mask = torch.stack([batch.mask for batch in batches])
        gradient, loss = self.gradient(self.weights, self.buffers, images, mask)
        for name, weight in self.weights.items():
            weight.grad = gradient[name]
        self.optimizer.step()
        return loss.detach()
