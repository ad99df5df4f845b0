"""Masks as outlines that fit into a page: closed SVG paths of whole numbers."""

from __future__ import annotations

import numpy as np
from contourpy import contour_generator
from matplotlib.path import Path as Polygon

FINE = 2  # units a pixel: borders run between pixels, so they stand on halves
SLACK = 0.5  # pixels that a simplified outline may lie beside the border


def outline(mask: np.ndarray) -> str:
    """The `d` of an SVG path along the border of a mask, in units of half a pixel; empty for an empty mask."""
    if not mask.any():
        return ""
    # A frame of background closes what touches the edge. Pixel (0, 0) covers the units 0 to 2.
    lines = contour_generator(z=np.pad(mask, 1).astype(np.float32), name="serial").lines(0.5)
    return "".join(_closed(np.asarray(line) - 0.5) for line in lines)


def _closed(line: np.ndarray) -> str:
    polygon = Polygon(line)
    polygon.simplify_threshold = SLACK
    # The last vertex closes the line; simplifying adds a stop at (0, 0) behind it.
    corners = np.asarray(polygon.cleaned(simplify=True).vertices)[:-1] if len(line) > 8 else line
    points = np.rint(corners * FINE).astype(int)
    points = points[np.r_[True, (np.diff(points, axis=0) != 0).any(axis=1)]]
    if len(points) > 1 and (points[0] == points[-1]).all():
        points = points[:-1]
    steps = np.diff(points, axis=0)
    start = f"M{points[0, 0]} {points[0, 1]}l"
    return start + " ".join(f"{x} {y}" for x, y in steps) + "z"
