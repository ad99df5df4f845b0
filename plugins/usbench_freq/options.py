"""What options of a step may be, said in one sentence where they are not."""

from __future__ import annotations


def probability(**values: float) -> None:
    """Each is a probability."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}: a probability")


def within(least: float, most: float, **ranges: tuple[float, float]) -> None:
    """Each is a range low/high inside [least, most]."""
    for name, (low, high) in ranges.items():
        if not least <= low <= high <= most:
            raise ValueError(f"{name} is {low}/{high}: {least} ≤ low ≤ high ≤ {most}")
