"""What a bench found: lines of a table, written as CSV and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from usbench.bench.setting import Setting
    from usbench.bench.timing import Samples

COLUMNS = (
    "what", "size", "backbone", "batch", "precision", "side", "value", "low", "high", "unit", "samples", "ratio",
    "ratio_low", "ratio_high", "ratio_of", "asked", "met", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Under what a line was measured."""

    what: str
    size: int | None = None
    backbone: str = ""
    batch: int | None = None
    precision: str = ""

    def __str__(self) -> str:
        parts = [self.backbone, f"{self.size} px" if self.size else "", f"batch {self.batch}" if self.batch else ""]
        return ", ".join(filter(None, [*parts, self.precision]))


@dataclass(frozen=True)
class Line:
    """One side of a comparison, or one number that stands for itself."""

    case: Case
    side: str
    samples: Samples | None = None  # None where it could not be measured, and the note says why
    unit: str = "ms"
    ratio: Samples | None = None
    ratio_of: str = ""  # "bare / ours", "times ours"
    note: str = ""
    asked: str = ""
    met: bool | None = None
    shares: Mapping[str, float] = field(default_factory=dict)  # of the time, by phase

    def row(self) -> dict[str, object]:
        """As it stands in the CSV."""
        row: dict[str, object] = dict.fromkeys(COLUMNS, "")
        case = self.case
        row |= {
            "what": case.what, "size": case.size, "backbone": case.backbone, "batch": case.batch,
            "precision": case.precision, "side": self.side, "unit": self.unit if self.samples else "",
            "asked": self.asked, "met": "" if self.met is None else self.met, "note": self.note,
        }  # fmt: skip
        if self.samples is not None:
            low, high = self.samples.quartiles
            row |= {"value": self.samples.median, "low": low, "high": high, "samples": len(self.samples.values)}
        if self.ratio is not None:
            low, high = self.ratio.quartiles
            row |= {"ratio": self.ratio.median, "ratio_low": low, "ratio_high": high, "ratio_of": self.ratio_of}
        return row

    @property
    def shown_shares(self) -> str:
        """Where the time goes, in words."""
        return ", ".join(f"{phase} {100 * share:.1f} %" for phase, share in self.shares.items())


def as_table(lines: list[Line]) -> pd.DataFrame:
    """A row a line; a column for the share of every phase that any line has."""
    phases = dict.fromkeys(phase for line in lines for phase in line.shares)
    rows = [line.row() | {f"share_{phase}": line.shares.get(phase) for phase in phases} for line in lines]
    return pd.DataFrame(rows, columns=[*COLUMNS, *(f"share_{phase}" for phase in phases)])


def against(setting: Setting, name: str, value: float, *, most: bool = False) -> tuple[str, bool | None]:
    """What is asked of a comparison, in words, and whether the value keeps it; nothing where nothing is asked."""
    bound = setting.asked["most" if most else setting.device].get(name)
    if bound is None or setting.quick:
        return "", None
    return (f"≤ {bound:g}", value <= bound) if most else (f"≥ {bound:g}", value >= bound)


def short(value: float) -> str:
    """Three digits, and no powers of ten."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
