"""The augmentation of papers, as far as grey images and what is known allow."""

from __future__ import annotations

from usbench_freq.spatial import Spatial

from usbench import Augmentation
from usbench_physics.display import Gain
from usbench_physics.texture import Blur


def _jitter(strength: float) -> Gain:
    """Brightness and contrast of a colour jitter; hue and saturation do not exist in grey. Applied to 80 %."""
    return Gain(brightness=strength, contrast=strength, gamma=0.0, dynamic_range=0.0, p=0.8)


def simclr(scale: tuple[float, float] = (0.08, 1.0), strength: float = 0.5, blur: float = 0.5) -> list[Augmentation]:
    """Resized crop, flip, brightness and contrast by 0.8 · strength, blur of 0.1 to 2 pixels at 224.

    The paper's recipe for ImageNet without what a grey image cannot have: hue, saturation, random grey. The paper's
    strength is 1 for ImageNet and 0.5 for small images; at 1 much tissue drowns in black or white.
    """
    if not 0 <= strength <= 1.25:
        raise ValueError(f"strength is {strength}: in [0, 1.25]")
    crop = Spatial(scale=scale, ratio=(3 / 4, 4 / 3), degrees=0.0)
    return [crop, _jitter(0.8 * strength), Blur(sigma=(0.1 / 224, 2 / 224), p=blur)]


def uscl(scale: tuple[float, float] = (0.8, 1.0), jitter: float = 0.4) -> list[Augmentation]:
    """A mild resized crop, flip, brightness and contrast; the strength of the jitter is our choice."""
    return [Spatial(scale=scale, ratio=(0.8, 1.25), degrees=0.0), _jitter(jitter)]


def ivpp(scale: tuple[float, float] = (0.4, 1.0), jitter: float = 0.4, blur: float = 0.5) -> list[Augmentation]:
    """Resized crop, flip, brightness and contrast, blur: a reconstruction, the list of steps was not known to us."""
    return [Spatial(scale=scale, degrees=0.0), _jitter(jitter), Blur(p=blur)]
