"""A small plot as inline SVG: axes, lines with intervals, marks. Colours and type come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 320, 236
LEFT, RIGHT, TOP, BOTTOM = 36, 8, 22, 36
# Each style has a mark of its own, so that colour never tells alone.
MARKS = {
    "s1": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "s2": "M-3.6-3.6h7.2v7.2h-7.2z", "s3": "M0-4.8L4.6 3.4h-9.2z",
    "s4": "M0-5L5 0L0 5L-5 0z", "s5": "M0 4.8L4.6-3.4h-9.2z",
    "s6": "M-5-1.6h3.4v-3.4h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4z",
    "base": "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z", "long": "M-3-3h6v6h-6z", "more": "M-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0z",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A mean with its interval, and what stands there in words."""

    x: float
    mean: float
    low: float
    high: float
    words: str


@dataclass
class Line:
    """The points of one method; `style` is one of MARKS, `place` its number in the page's legend."""

    place: int
    style: str
    points: list[Point] = field(default_factory=list)


@dataclass(frozen=True)
class Axis:
    """A range with its ticks."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    title: str
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, from 0 to 1; beyond the range it is held at the end."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return min(1.0, max(0.0, (value - low) / (high - low)))


def axis(values: Sequence[float], title: str, *, log: bool = False) -> Axis:
    """An axis around some numbers, with round ticks."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    known = np.array([v for v in values if math.isfinite(v)] or [0.0, 1.0])
    low, high = float(known.min()), float(known.max())
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1))
    if log:
        low, high = low / 1.25, high * 1.25
        ticks = [t for t in LogLocator(subs=(1, 2, 5)).tick_values(low, high) if low <= t <= high]
        ticks = ticks if len(ticks) <= 5 else ticks[:: -(-len(ticks) // 5)]
    else:
        low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
        ticks = [t for t in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= t <= high]
    return Axis(low, high, tuple((float(t), short(t)) for t in ticks), title, log)


def short(value: float) -> str:
    """A number for a tick: 1200000 → 1.2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def panel(title: str, description: str, lines: Sequence[Line], x: Axis, y: Axis, *, joined: bool = True) -> Markup:
    """A plot that says in words what it is of."""

    def at(point: Point) -> tuple[float, float]:
        return LEFT + x.share(point.x) * (WIDTH - LEFT - RIGHT), up(point.mean)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - y.share(value) * (HEIGHT - TOP - BOTTOM)

    parts = [_axes(x, y, up)]
    for line in lines:
        known = [p for p in line.points if math.isfinite(p.mean)]
        whole = [p for p in known if math.isfinite(p.low + p.high)]
        ends = "".join(f"M{at(p)[0]:.1f} {up(p.low):.1f}V{up(p.high):.1f}" for p in whole)
        parts.append(Markup('<g class="ln {}" data-m="{}">').format(line.style, line.place))
        if ends:
            parts.append(Markup('<path class="ci" d="{}"/>').format(ends))
        if joined and len(known) > 1:
            parts.append(
                Markup('<path class="l" d="M{}"/>').format("L".join("{:.1f} {:.1f}".format(*at(p)) for p in known))
            )
        for p in known:
            parts.append(dot(*at(p), line.style, p.words))
        parts.append(Markup("</g>"))
    return picture(title, description, WIDTH, HEIGHT, Markup("").join(parts))


def _axes(x: Axis, y: Axis, up: Callable[[float], float]) -> Markup:
    inner = WIDTH - LEFT - RIGHT
    parts = [text(0, 10, y.title, "yt")]
    for value, shown in y.ticks:
        parts.append(
            Markup('<path class="grid" d="M{} {:.1f}h{}"/><text x="{}" y="{:.1f}" class="ty">{}</text>').format(
                LEFT, up(value), inner, LEFT - 6, up(value) + 4, shown
            )
        )
    for value, shown in x.ticks:
        place = LEFT + x.share(value) * inner
        parts.append(
            Markup('<path class="tick" d="M{:.1f} {}v4"/><text x="{:.1f}" y="{}" class="tx">{}</text>').format(
                place, HEIGHT - BOTTOM, place, HEIGHT - BOTTOM + 16, shown
            )
        )
    parts.append(
        Markup('<path class="axis" d="M{} {}h{}"/><text x="{}" y="{}" class="tt">{}</text>').format(
            LEFT, HEIGHT - BOTTOM, inner, LEFT + inner / 2, HEIGHT - 4, x.title
        )
    )
    return Markup("").join(parts)


def picture(title: str, description: str, width: float, height: float, inside: Markup) -> Markup:
    """An SVG with a name and a description for those who do not see it."""
    return Markup(
        '<svg class="plot" viewBox="0 0 {:g} {:g}" role="img"><title>{}</title><desc>{}</desc>{}</svg>'
    ).format(width, height, title, description, inside)


def dot(x: float, y: float, style: str, words: str) -> Markup:
    """A style's mark at a place, and what it says when pointed at."""
    return Markup('<path class="m" transform="translate({:.1f} {:.1f})" d="{}"><title>{}</title></path>').format(
        x, y, MARKS[style], words
    )


def mark(style: str) -> Markup:
    """A style's mark by itself, for legends."""
    return Markup('<svg class="key ln {0}" viewBox="-12 -7 24 14" aria-hidden="true"><path class="l" d="M-12 0h24"/>'
                  '<path class="m" d="{1}"/></svg>').format(style, MARKS[style])  # fmt: skip


def text(x: float, y: float, words: str, kind: str = "") -> Markup:
    """Words at a place."""
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(x, y, kind, escape(words))
