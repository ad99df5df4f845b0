"""One resumable training loop for pretraining and fine-tuning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn

from usbench.contracts.loss import check_parts
from usbench.errors import Interrupted, RunFailed, listed
from usbench.made import EARLIER, here
from usbench.train import checkpoint
from usbench.train.held import check_optimised
from usbench.train.memory import peak_mib
from usbench.train.schedule import Schedule

WINDOW = 10  # steps that one row of the curve averages
SAVE_SECONDS = 15.0  # between checkpoints, at least
SAVE_SHARE = 0.02  # of a training's time that writing them may take
LONGEST = 20  # times SAVE_SECONDS: the most between two of them, whatever writing one takes
WORTH_SECONDS = 2.0  # of work at the end; less is done again as fast as it is written and read
STATE = "state.safetensors"


def save_interval(seconds: float) -> float:
    """The seconds from a checkpoint to the next, where writing one takes so long: what a kill costs at most."""
    return min(max(SAVE_SECONDS, seconds / SAVE_SHARE), LONGEST * SAVE_SECONDS)


class Watcher(Protocol):
    """Who is told how a training goes, and may ask it to stop."""

    @property
    def stopping(self) -> bool:
        """Whether the user asked to stop."""

    def step(self, done: int, total: int, loss: float, rate: float) -> None:
        """Called at the end of each window; `rate` is source images a second."""


@dataclass(frozen=True)
class Compute:
    """Where and how precisely to compute."""

    device: torch.device
    precision: str  # "bf16" or "float32"

    def autocast(self) -> AbstractContextManager[Any]:
        """The forward's precision: bf16 where that was resolved, else float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def place(self, module: nn.Module) -> nn.Module:
        """The module on the device, in channels-last layout."""
        return module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _is_scalar(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim == 0


def adamw(schedule: Schedule, parts: Iterable[tuple[nn.Module, float]]) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, each once; norms and biases are not decayed."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    seen: set[int] = set()
    for module, factor in parts:
        for parameter in module.parameters():
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                groups.setdefault((factor, parameter.ndim > 1), []).append(parameter)
    rows = [
        {"params": params, "weight_decay": schedule.weight_decay * decayed, "factor": factor}
        for (factor, decayed), params in groups.items()
    ]
    return torch.optim.AdamW(rows, lr=schedule.lr, fused=True)


@dataclass
class Training:
    """What is trained: modules and optimiser by name, plus tensors that must survive a restart."""

    title: str
    folder: Path
    schedule: Schedule
    modules: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    facts: dict[str, Any] = field(default_factory=dict)  # JSON: best step so far, and the like
    kept: dict[str, Tensor] = field(default_factory=dict)  # tensors: best weights so far, and the like
    writes: bool = True  # of several ranks only the first does

    def __post_init__(self) -> None:
        self.step = self.saved = 0
        self.unsaved = 0.0  # seconds of work, when the last step is done
        self.seconds = 0.0
        self.rows: list[dict[str, float]] = []
        self.pending: list[Tensor] = []
        self.names: list[str] = []
        self.here = here()
        self.earlier: list[dict[str, Any]] = []  # what else its steps were made with before
        if (self.folder / STATE).exists():
            self._restore()

    def _restore(self) -> None:
        mend = "delete it and run the same command again, and this training begins anew"
        tensors, facts = checkpoint.read(self.folder / STATE, mend)
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            head, _, rest = name.partition("/")
            parts.setdefault(head, {})[rest] = tensor
        for name, module in self.modules.items():
            checkpoint.restore(module, parts.get(name, {}))
        checkpoint.restore_optimizer(self.optimizer, parts.get("optimizer", {}))
        self.kept = parts.get("kept", {})
        device = self.optimizer.param_groups[0]["params"][0].device
        self.pending = list(parts["pending"]["rows"].to(device)) if "pending" in parts else []
        self.step = self.saved = facts["step"]
        self.seconds, self.rows, self.names = facts["seconds"], facts["rows"], facts["names"]
        self.facts = facts["facts"]
        self.earlier = [made for made in facts.get(EARLIER, []) if made != self.here]

    def save(self) -> None:
        """Write everything the next step depends on."""
        tensors = {f"optimizer/{k}": v for k, v in checkpoint.optimizer_tensors(self.optimizer).items()}
        for name, module in self.modules.items():
            tensors |= {f"{name}/{k}": v for k, v in checkpoint.tensors_of(module).items()}
        tensors |= {f"kept/{k}": v for k, v in self.kept.items()}
        if self.pending:
            tensors["pending/rows"] = torch.stack(self.pending)
        facts = {"step": self.step, "seconds": self.seconds, "rows": self.rows, "names": self.names}
        facts[EARLIER] = [*self.earlier, self.here]
        if self.writes:
            checkpoint.write(self.folder / STATE, tensors, {**facts, "facts": self.facts})
        self.saved = self.step

    def run(
        self,
        do: Callable[[int], dict[str, Tensor]],
        watcher: Watcher,
        after: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Do the steps that are missing; `after` is called when a step is done, with how many are."""
        began, last_save, start = time.perf_counter() - self.seconds, time.perf_counter(), self.step
        clock, cost = time.perf_counter(), 0.0
        while self.step < self.schedule.steps:
            rate = self.schedule.rate(self.step)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            parts = do(self.step)
            if not isinstance(parts, Mapping) or not all(map(_is_scalar, parts.values())):
                raise RunFailed(f"a step of {self.title} gave no named scalars: return a dict of them from step().")
            if not self.names:
                check_parts(parts)
                check_optimised(self.modules.values(), self.optimizer)
                self.names = list(parts)
            if len(parts) != len(self.names) or any(name not in parts for name in self.names):
                raise RunFailed(
                    f"the loss of {self.title} has the parts {listed(map(str, parts))} at step {self.step}, and had "
                    f"{listed(map(str, self.names))}: give the same at each step, 0 where there is nothing."
                )
            self.pending.append(torch.stack([parts[name] for name in self.names]).float())
            self.step += 1
            if self.step % WINDOW == 0 or self.step == self.schedule.steps:
                self._close_window(rate)
                now = time.perf_counter()
                done = self.step - start
                watcher.step(
                    self.step, self.schedule.steps, self.rows[-1]["loss"], done * self.schedule.batch / (now - clock)
                )
            after(self.step)
            self.seconds = time.perf_counter() - began
            if watcher.stopping and self.step < self.schedule.steps:
                self._check_finite()
                self.save()
                raise Interrupted(f"{self.title} is saved at step {self.step} of {self.schedule.steps}")
            if (now := time.perf_counter()) - last_save > save_interval(cost):
                self._check_finite()
                self.save()
                last_save = time.perf_counter()
                cost = last_save - now
        self.unsaved = time.perf_counter() - last_save

    def _check_finite(self) -> None:
        # Asked once for all of them: each answer waits for the device.
        if not self.pending or torch.isfinite(torch.stack(self.pending)).all():
            return
        for back, values in enumerate(self.pending):
            if not torch.isfinite(values).all():
                step = self.step - len(self.pending) + back
                good = f"step {self.saved} in {self.folder / STATE}" if self.saved else "none yet: it starts anew"
                mend = (
                    "try a smaller learning rate"
                    if step
                    else "no weight has moved yet, so look at the loss and the views"
                )
                raise RunFailed(
                    f"the loss of {self.title} became {values.sum().item()} at step {step} "
                    f"(learning rate {self.schedule.rate(step):.2e}); the last good checkpoint is {good}; "
                    f"{mend}."
                )

    def _close_window(self, rate: float) -> None:
        self._check_finite()
        means = torch.stack(self.pending).mean(0).tolist()
        row = {"step": self.step, "lr": rate, "loss": sum(means)}
        if len(self.names) > 1:
            row |= dict(zip(self.names, means, strict=True))
        self.rows.append(row)
        self.pending = []

    def finish(self, weights: dict[str, Tensor]) -> dict[str, Any]:
        """Write the weights and the curve; returns what they cost. The state stays until the stage is recorded."""
        if self.saved != self.step and self.unsaved > WORTH_SECONDS:
            self.save()  # what follows in the stage may fail, and the training need not be done again
        if self.writes:
            checkpoint.write(self.folder / "weights.safetensors", weights)
            pd.DataFrame(self.rows).to_csv(self.folder / "curve.csv", index=False, float_format="%.6g")
        cost = {"device_seconds": round(self.seconds, 2), "peak_mib": peak_mib(next(iter(self.modules.values())))}
        return {**cost, EARLIER: self.earlier} if self.earlier else cost
