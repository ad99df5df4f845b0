"""How long a training is, and its learning rate over the steps. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Steps, batch and the learning rate over them: linear warm-up, then a cosine to zero."""

    steps: int
    batch: int
    lr: float
    weight_decay: float
    warmup: float  # share of the steps
    encoder_factor: float = 1.0  # of the encoder's learning rate

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.lr * (step + 1) / rise
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, self.steps - rise)))
