"""What is taken for a lesion, or hides one: fat lobules within the gland, vessels, shadows, ribs."""

from __future__ import annotations

import numpy as np

from usbench_phantom.simulate import Canvas, step


def add_fat_lobules(canvas: Canvas, within: tuple[float, float], rng: np.random.Generator) -> None:
    """Dark ovals within the gland, as dark as the fat above it, some with a bright rim; they lie along the layers."""
    scan, depth = canvas.scan, canvas.scan.depth[:, None]
    span = scan.domain.depth_mm
    for _ in range(rng.poisson(scan.domain.lobules)):
        x, middle = rng.uniform(-0.5, 0.5) * span, rng.uniform(*within)
        width, height = rng.uniform(0.04, 0.13) * span, rng.uniform(0.02, 0.055) * span
        distance = np.hypot((scan.x - x) / width, (depth - middle - rng.normal(0, 0.3) * (scan.x - x)) / height)
        canvas.level += step(1 - distance, 0.2) * (rng.uniform(-5, 0) - 0.7 * canvas.level)
        rim = np.exp(-(((distance - 1.05) / 0.12) ** 2))
        canvas.mirror += rng.uniform(0, 2) * rim * np.clip(abs(depth - middle) / height, 0, 1)


def add_vessels(canvas: Canvas, rng: np.random.Generator) -> None:
    """Echo-free discs or tubes a few mm thick."""
    scan, depth = canvas.scan, canvas.scan.depth[:, None]
    span = scan.domain.depth_mm
    for _ in range(rng.poisson(scan.domain.vessels)):
        x, middle = rng.uniform(-0.5, 0.5) * span, rng.uniform(0.15, 0.7) * span
        calibre = rng.uniform(0.5, 1.4)
        length = calibre * rng.choice([1.0, rng.uniform(2, 5)])
        distance = np.hypot((scan.x - x) / length, (depth - middle - rng.normal(0, 0.2) * (scan.x - x)) / calibre)
        canvas.level += step(1 - distance, 0.25) * (rng.uniform(-22, -12) - canvas.level)


def add_shadows(canvas: Canvas, within: tuple[float, float], nipple: bool, rng: np.random.Generator) -> None:
    """Shadows of steep ligaments, and the nipple's."""
    scan, depth = canvas.scan, canvas.scan.depth[:, None]
    span = scan.domain.depth_mm
    for _ in range(rng.poisson(scan.domain.shadowing)):
        x, width, top = rng.uniform(-0.55, 0.55) * span, rng.uniform(0.02, 0.07) * span, rng.uniform(*within)
        lean = rng.normal(0, 0.06) * (depth - top)
        side = np.exp(-0.5 * ((scan.x - x - lean) / width) ** 2)
        canvas.loss_rate += rng.uniform(0.3, 1.2) * side * ((depth > top) & (depth < top + 6))
    if nipple:
        side = np.exp(-0.5 * ((scan.x - rng.uniform(-0.2, 0.2) * span) / (0.1 * span)) ** 2)
        canvas.loss_rate += rng.uniform(1, 2) * side * ((depth > 1) & (depth < 8))


def add_ribs(canvas: Canvas, along: np.ndarray, muscle: np.ndarray, rng: np.random.Generator) -> None:
    """Ribs below the muscle: a bright cap, and next to nothing behind it."""
    depth = canvas.scan.depth[:, None]
    for x in np.arange(rng.uniform(-35, -10), 40, rng.uniform(20, 28)):
        half = rng.uniform(5, 8)
        top = muscle + 1 + rng.uniform(1, 2.5) * ((along - x) / half) ** 2
        here = step(half - abs(along - x), 1.5)
        canvas.level += 6 * here * np.exp(-(((depth - top) / 0.6) ** 2))
        canvas.mirror += 4 * here * np.exp(-(((depth - top) / 0.35) ** 2))
        canvas.loss_rate += 2.5 * here * (depth > top + 0.5)
