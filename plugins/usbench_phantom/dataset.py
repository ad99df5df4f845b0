"""The phantom data set: patients with stills and cine clips, drawn one by one from their own generators."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from usbench import Dataset, Item
from usbench_phantom.anatomy import Habitus, plane
from usbench_phantom.display import Settings, render
from usbench_phantom.domains import DOMAINS
from usbench_phantom.lesions import BENIGN, MALIGNANT, NORMAL, Lesion, draw_lesion
from usbench_phantom.simulate import REST, Motion, Scan, echoes

CLIP_FRAMES = 6
CLIP_FPS = 15.0
CLIP_SHARE = 0.25  # of the patients
STILLS = (1, 3)
SMALLEST = 32  # pixels


class Phantom(Dataset):
    """Simulated breast ultrasound of one scanner; patient k is the same whatever the number of patients."""

    source = "simulated by usbench_phantom"
    licence = "CC0-1.0"
    citation = "usbench_phantom: a simulator of breast B-mode ultrasound, part of usbench"
    version = "1"
    classes = ("benign", "malignant", "normal")

    def __init__(self, domain: str = "l7", patients: int = 94, size: int = 128, seed: int = 0) -> None:
        if domain not in DOMAINS:
            raise ValueError(f"there is no phantom domain '{domain}': the domains are {', '.join(DOMAINS)}.")
        if patients < 1:
            raise ValueError(f"a phantom needs at least one patient, not {patients}.")
        if size < SMALLEST:
            raise ValueError(f"a phantom image needs at least {SMALLEST} pixels a side, not {size}.")
        if seed < 0:
            raise ValueError(f"the phantom's seed must not be negative, as {seed} is.")
        super().__init__(domain=domain, patients=patients, size=size, seed=seed)
        self.name, self.domain = domain, DOMAINS[domain]
        self.patients, self.size, self.seed = patients, size, seed
        self.people = f"phantom-{domain}-{seed}"  # however many of them, and at whatever size

    def count(self, path: Path | None) -> int:
        """The number of images, without simulating one."""
        cases = (self._case(patient) for patient in range(self.patients))
        return sum(stills + CLIP_FRAMES * has_clip for _, stills, has_clip, _ in cases)

    def items(self, path: Path | None) -> Iterator[Item]:
        """Every patient's stills, then the clip."""
        scan = Scan(self.domain, self.size)
        for patient in range(self.patients):
            yield from self._patient(scan, patient)

    def _case(self, patient: int) -> tuple[int, int, bool, np.random.Generator]:
        """A patient's label, number of stills, whether there is a clip, and the generator for the rest."""
        rng = np.random.default_rng([self.seed, self.domain.number, patient])
        normal, malignant = self.domain.normal, self.domain.malignant
        label = int(rng.choice([BENIGN, MALIGNANT, NORMAL], p=[1 - normal - malignant, malignant, normal]))
        return label, int(rng.integers(STILLS[0], STILLS[1] + 1)), bool(rng.random() < CLIP_SHARE), rng

    def _patient(self, scan: Scan, patient: int) -> Iterator[Item]:
        label, stills, has_clip, rng = self._case(patient)
        habitus, settings = Habitus.draw(self.domain, rng), Settings.draw(self.domain, rng)
        lesion = None if label == NORMAL else draw_lesion(self.domain, label, rng)
        who = f"{self.name}-{patient:04d}"
        for still in range(stills + has_clip):
            seen = lesion.seen_again(self.domain, rng) if lesion and still else lesion
            clip = still == stills
            motion = _sweep(self.domain.depth_mm, rng) if clip else REST
            images = self._acquire(scan, habitus, seen, settings, motion, rng)
            masks = _masks(scan, seen, motion)
            for frame, (image, mask) in enumerate(zip(images, masks, strict=True)):
                yield Item(
                    name=f"{who}-clip-{frame}" if clip else f"{who}-{still}",
                    image=image,
                    mask=mask,
                    sector=scan.sector.copy(),
                    label=label,
                    tag="breast",
                    patient=who,
                    video=f"{who}-clip" if clip else "",
                    frame=frame if clip else -1,
                    time=frame / CLIP_FPS if clip else float("nan"),
                    fps=CLIP_FPS if clip else float("nan"),
                    device=self.domain.device,
                    pixel_mm=scan.pixel_mm,
                )

    def _acquire(
        self,
        scan: Scan,
        habitus: Habitus,
        lesion: Lesion | None,
        settings: Settings,
        motion: Motion,
        rng: np.random.Generator,
    ) -> np.ndarray:
        tissue = plane(scan, habitus, lesion, rng)
        return render(scan, echoes(scan, tissue, motion, settings.focus_mm, rng), settings, rng)


def _sweep(depth_mm: float, rng: np.random.Generator) -> Motion:
    """A probe slid along the skin, with a little shear, from one side of rest to the other."""
    path = np.linspace(-0.5, 0.5, CLIP_FRAMES) + 0.04 * np.sin(np.linspace(0, 6, CLIP_FRAMES) + rng.uniform(0, 6))
    direction = rng.choice([-1.0, 1.0])
    return Motion(
        slide=direction * rng.uniform(0.05, 0.11) * depth_mm * path,
        shear=rng.normal(0, 0.02) * path,
        turn=rng.uniform(0.4, 1.0) * (path - path[0]),
    )


def _masks(scan: Scan, lesion: Lesion | None, motion: Motion) -> np.ndarray:
    """The lesion's exact region in every frame."""
    if lesion is None:
        return np.zeros((len(motion.slide), scan.size, scan.size), np.bool_)
    return (lesion.reach(*scan.locate(motion)) < 1) & scan.sector
