"""`epoch`: a pretraining epoch as lightly's documentation runs it, against ours as it comes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from usbench.bench.lines import Case, Line, against
from usbench.bench.setting import Setting
from usbench.bench.subject import compute_of, feed_of, network_of, pixels_of, pretraining
from usbench.bench.timing import Work, in_turns
from usbench.contracts import pooled
from usbench.views import DEVIATION, MEAN

OURS, DOCUMENTED, EQUAL = "ours", "lightly as documented", "lightly, our precision and channel"
TURNS = 3  # an epoch each
NOTES = {
    OURS: "the true loop with {loss} · {aug}: one channel, {precision}, fused AdamW",
    DOCUMENTED: "LightlyDataset of PNG files, SimCLRTransform, three channels, float32, SGD; a DataLoader with "
    "{workers} workers, which begin anew every epoch",
    EQUAL: "the same files and DataLoader, but one channel, {precision}, channels_last and fused AdamW",
}  # fmt: skip


def measure(setting: Setting) -> Iterator[Line]:
    """For each size and network."""
    for backbone in setting.backbones:
        for size in setting.sizes:
            with TemporaryDirectory() as folder:
                yield from compare(setting, backbone, size, Path(folder))


def compare(setting: Setting, backbone: str, size: int, folder: Path) -> Iterator[Line]:
    """An epoch over the same images, in turns."""
    device, batches = torch.device(setting.device), setting.images // setting.batch
    write_images(setting, size, folder / "images", batches * setting.batch)
    (folder / "ours").mkdir()
    ours = pretraining(setting, backbone, size, folder / "ours")
    sides: dict[str, Work] = {
        OURS: lambda: ours.go_on(batches),
        DOCUMENTED: documented(setting, backbone, size, folder / "images"),
        EQUAL: equal(setting, backbone, size, folder / "images"),
    }
    found = in_turns(sides, device, min(TURNS, setting.turns))
    for name, samples in found.items():
        ratio = samples.over(found[OURS]) if name != OURS else None
        asked, met = against(setting, f"epoch, {name}", ratio.median if ratio else 1.0)
        precision = "float32" if name == DOCUMENTED else setting.precision
        note = NOTES[name].format(
            loss=setting.loss, aug=setting.aug, precision=setting.precision, workers=setting.workers
        )
        yield Line(
            Case("epoch", size, backbone, setting.batch, precision), name, samples, ratio=ratio,
            ratio_of="times ours" if ratio else "", asked=asked, met=met,
            note=f"{note}; a step of an epoch of {batches}",
        )  # fmt: skip


def write_images(setting: Setting, size: int, folder: Path, count: int) -> None:
    """PNG files of the images as ours holds them, some of them several times where the set is small."""
    from PIL import Image

    images = pixels_of(feed_of(setting, size, torch.device("cpu")))
    folder.mkdir()
    for number, image in enumerate(itertools.islice(itertools.cycle(images), count)):
        Image.fromarray(image).save(folder / f"{number:06d}.png")


class Grey:
    """A transform of PIL images that is given one channel, and not the three that LightlyDataset reads."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, image: Any) -> list[Tensor]:
        return self.transform(image.convert("L"))


class Contrastive(nn.Module):
    """An encoder and the projection head of lightly's example."""

    def __init__(self, encoder: nn.Module, dim: int) -> None:
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__()
        self.encoder, self.head = encoder, SimCLRProjectionHead(dim, dim, 128)

    def forward(self, images: Tensor) -> Tensor:
        """Projected."""
        return self.head(pooled(self.encoder(images)))


def documented(setting: Setting, backbone: str, size: int, images: Path) -> Work:
    """The loop of lightly's SimCLR example."""
    from lightly.transforms.simclr_transform import SimCLRTransform

    network = network_of(setting, backbone, size)
    see_colours(network.encoder)
    model = Contrastive(network.encoder, network.dim).to(setting.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    return _epoch(setting, model, optimizer, images, SimCLRTransform(input_size=size), nullcontext)


def equal(setting: Setting, backbone: str, size: int, images: Path) -> Work:
    """The same with one channel, our precision and our optimiser."""
    from lightly.transforms.simclr_transform import SimCLRTransform

    compute, network = compute_of(setting), network_of(setting, backbone, size)
    model = compute.place(Contrastive(network.encoder, network.dim))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    transform = SimCLRTransform(
        input_size=size, cj_sat=0.0, cj_hue=0.0, random_gray_scale=0.0, normalize={"mean": [MEAN], "std": [DEVIATION]}
    )
    return _epoch(setting, model, optimizer, images, Grey(transform), compute.autocast)


def _epoch(
    setting: Setting,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Path,
    transform: Any,
    precision: Callable[[], Any],
) -> Work:
    from lightly.data import LightlyDataset
    from lightly.loss import NTXentLoss

    criterion = NTXentLoss()
    loader = torch.utils.data.DataLoader(
        LightlyDataset(str(images), transform=transform), batch_size=setting.batch, shuffle=True, drop_last=True,
        num_workers=setting.workers,
    )  # fmt: skip

    def work() -> int:
        steps = 0
        for batch in loader:
            first, second = (view.to(setting.device) for view in batch[0])
            with precision():
                projected = model(first), model(second)
            loss = criterion(projected[0].float(), projected[1].float())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
        loss.item()
        return steps

    return work


def see_colours(encoder: nn.Module) -> None:
    """Give the first convolution three channels, as lightly's transforms make them."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 1:
            wider = nn.Conv2d(
                3, module.out_channels, module.kernel_size, module.stride, module.padding,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )  # fmt: skip
            owner, _, attribute = name.rpartition(".")
            setattr(encoder.get_submodule(owner), attribute, wider)
            return
