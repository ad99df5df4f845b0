"""The three scanners: what differs between them, and how hard the lesions that they see are.

Lengths are in mm, levels and losses in dB, loss rates in dB/mm (both ways). A pair is a range to draw from evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Domain:
    """One scanner with the patients it sees. The last block sets how hard the task is."""

    number: int  # seeds the draws, so it stays when domains are added
    device: str
    # probe
    frequency_mhz: float
    bandwidth: float  # two-way, as a fraction of the centre frequency
    depth_mm: float
    width_mm: float  # aperture of a linear array; unused by a curved one
    radius_mm: float  # of a curved array; 0 is a linear one
    half_angle: float  # of a curved array, in radians
    f_number: float
    focus: Range  # depth of the focus as a fraction of the depth
    defocus: float  # growth of the beam's width away from the focus
    sidelobe_db: float
    looks: int  # angles compounded
    # chain from echo to grey
    dynamic_range_db: Range
    gain_db: Range  # grey level of fat, above the floor of the dynamic range
    gamma: float  # of the grey map: below one lifts the dark tones
    tgc_slope_db: Range  # uncompensated loss from the face to the full depth
    tgc_ripple_db: float
    noise_db: Range  # electronic noise at full depth, against fat
    reverberation_db: Range  # clutter at the face, against fat
    dropout: float  # mean number of poorly coupled stretches of the face
    lift_off: float  # share of patients on whom one end of the face has no contact at all
    # patients and lesions
    lesion_mm: Range  # longest diameter, drawn evenly in its logarithm
    benign_contrast_db: Range
    malignant_contrast_db: Range
    subtle: float  # share of lesions with less than half of their contrast
    margin_mm: Range  # blur of a malignant margin
    spiculation: float  # scale of a malignant outline's excursions
    shadow_db_mm: Range  # malignant excess attenuation
    enhancement_db_mm: Range  # benign lack of attenuation
    lobules: float  # mean number of dark fat lobules within the gland
    vessels: float  # mean number of vessels
    shadowing: float  # mean number of ligament shadows
    normal: float = 0.12
    malignant: float = 0.36


DOMAINS = {
    "l7": Domain(
        number=7,
        device="Workstation L7",
        frequency_mhz=7.0,
        bandwidth=0.65,
        depth_mm=40.0,
        width_mm=40.0,
        radius_mm=0.0,
        half_angle=0.0,
        f_number=2.2,
        focus=(0.35, 0.55),
        defocus=0.045,
        sidelobe_db=-32.0,
        looks=2,
        dynamic_range_db=(48.0, 60.0),
        gain_db=(16.0, 28.0),
        gamma=1.15,
        tgc_slope_db=(-1.0, 9.0),
        tgc_ripple_db=1.5,
        noise_db=(-24.0, -12.0),
        reverberation_db=(-6.0, 2.0),
        dropout=0.3,
        lift_off=0.2,
        lesion_mm=(5.5, 20.0),
        benign_contrast_db=(4.0, 17.0),
        malignant_contrast_db=(5.0, 17.0),
        subtle=0.15,
        margin_mm=(0.3, 1.2),
        spiculation=1.0,
        shadow_db_mm=(-0.2, 1.2),
        enhancement_db_mm=(0.0, 0.8),
        lobules=1.5,
        vessels=0.6,
        shadowing=0.7,
    ),
    "l12": Domain(
        number=12,
        device="High-resolution L12",
        frequency_mhz=12.0,
        bandwidth=0.75,
        depth_mm=30.0,
        width_mm=30.0,
        radius_mm=0.0,
        half_angle=0.0,
        f_number=1.8,
        focus=(0.3, 0.5),
        defocus=0.035,
        sidelobe_db=-38.0,
        looks=3,
        dynamic_range_db=(62.0, 74.0),
        gain_db=(20.0, 29.0),
        gamma=1.0,
        tgc_slope_db=(6.0, 18.0),
        tgc_ripple_db=2.0,
        noise_db=(-22.0, -10.0),
        reverberation_db=(-10.0, -2.0),
        dropout=0.8,
        lift_off=0.2,
        lesion_mm=(3.0, 11.0),
        benign_contrast_db=(5.0, 14.0),
        malignant_contrast_db=(6.0, 14.0),
        subtle=0.25,
        margin_mm=(0.3, 1.0),
        spiculation=1.2,
        shadow_db_mm=(-0.2, 1.6),
        enhancement_db_mm=(0.0, 0.9),
        lobules=2.5,
        vessels=1.2,
        shadowing=1.0,
    ),
    "c5": Domain(
        number=5,
        device="Portable C5",
        frequency_mhz=5.0,
        bandwidth=0.55,
        depth_mm=50.0,
        width_mm=0.0,
        radius_mm=50.0,
        half_angle=math.radians(16),
        f_number=2.6,
        focus=(0.45, 0.7),
        defocus=0.05,
        sidelobe_db=-24.0,
        looks=2,
        dynamic_range_db=(46.0, 54.0),
        gain_db=(17.0, 26.0),
        gamma=1.25,
        tgc_slope_db=(2.0, 12.0),
        tgc_ripple_db=3.0,
        noise_db=(-20.0, -8.0),
        reverberation_db=(0.0, 8.0),
        dropout=1.0,
        lift_off=0.25,
        lesion_mm=(8.0, 25.0),
        benign_contrast_db=(7.0, 17.0),
        malignant_contrast_db=(8.0, 17.0),
        subtle=0.2,
        margin_mm=(0.4, 1.5),
        spiculation=1.0,
        shadow_db_mm=(0.0, 1.4),
        enhancement_db_mm=(0.0, 0.6),
        lobules=1.5,
        vessels=0.8,
        shadowing=1.6,
    ),
}
