"""`precision`: a fine-tune step in float32 and in the precision that the harness chooses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from usbench.bench.lines import Case, Line, against
from usbench.bench.setting import Setting
from usbench.bench.subject import finetuning
from usbench.bench.timing import Work, in_turns
from usbench.machine import cpu_flags, resolve_precision


def measure(setting: Setting) -> Iterator[Line]:
    """For each size and network."""
    for backbone in setting.backbones:
        for size in setting.sizes:
            with TemporaryDirectory() as folder:
                yield from compare(setting, backbone, size, Path(folder))


def compare(setting: Setting, backbone: str, size: int, folder: Path) -> Iterator[Line]:
    """The same images and steps, in turns."""
    auto = resolve_precision("auto", setting.device)
    case = Case("precision", size, backbone, setting.tuned_batch)
    if auto == "float32":
        yield Line(case, "auto", note="auto precision is float32 here: nothing multiplies bf16 in hardware")
        return
    sides: dict[str, Work] = {}
    for precision in ("float32", auto):
        (folder / precision).mkdir()
        subject = finetuning(setting, backbone, size, folder / precision, precision=precision)
        sides[precision] = lambda subject=subject: subject.go_on(setting.steps)  # type: ignore[misc]
    found = in_turns(sides, torch.device(setting.device), setting.turns)
    ratio = found["float32"].over(found[auto])
    wide = setting.device == "cuda" or "amx_bf16" in cpu_flags()  # else bf16 is multiplied at little more than twice
    asked, met = against(setting, "precision, float32", ratio.median) if wide else ("", None)
    yield Line(case, auto, found[auto], note="what auto precision is here")
    yield Line(case, "float32", found["float32"], ratio=ratio, ratio_of=f"times {auto}", asked=asked, met=met)
