"""USCL: pairs of mixed frames of one video, contrasted with other videos and classified where a label is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor

from usbench import Batch, Clip, Loss, Network, Out
from usbench.contracts import Head
from usbench_ultrasound.contrast import Classifier, check, nt_xent


@dataclass(frozen=True)
class Three(Clip):
    """Three frames of a video. The one in the middle is mixed into both of the others."""

    roles: tuple[str, ...] = ("first", "between", "last")
    ordered: bool = False
    stills: bool = True


def several(frame: Tensor) -> Tensor:
    """(N,) whether the three frames of each item differ: two are not mixed, and one is augmented twice."""
    first, between, last = frame.unbind(1)
    return (first != between) & (between != last) & (first != last)


class Mixed(Loss):
    """Views of a video: v₁ = λx₁ + (1−λ)x₂ and v₂ = λx₃ + (1−λ)x₂, of three frames, with one λ a video.

    A video of two frames gives these unmixed; one of one frame, and with `stills` an image without a video, gives two
    augmentations of it.
    """

    views = (1, 0)
    item = Three()
    pretrain_labels = "all"

    def __init__(self, network: Network, beta: float, stills: bool, head: Head | None = None) -> None:
        check(beta=beta)
        super().__init__(network, head=head)
        self.beta = beta
        self.item = Three(stills=stills)

    def look(self, batch: Batch) -> Out:
        """The frames are mixed as pixels, after augmentation."""
        return super().look(replace(batch, views=self.mix(batch)))

    def mix(self, batch: Batch) -> list[Tensor]:
        """The two views of each video."""
        first, between, last = batch.views
        drawn = torch.from_numpy(batch.rng.beta(self.beta, self.beta, len(first))).to(first)
        share = torch.where(several(batch.frame), drawn, 1.0)[:, None, None, None]
        return [torch.lerp(between, first, share), torch.lerp(between, last, share)]


class USCL(Mixed):
    """NT-Xent between two mixtures of a video's frames, and cross-entropy where the video has a label.

    Args:
        temperature: of the contrast.
        label_weight: weight of the cross-entropy, summed over the two views.
        beta: λ ~ Beta(beta, beta) of the mixtures.
        projection: width of the embedding; the classifier stands on it.
        stills: take part with the images that belong to no video.
    """

    def __init__(
        self,
        network: Network,
        temperature: float = 0.5,
        label_weight: float = 0.2,
        beta: float = 0.5,
        projection: int = 256,
        stills: bool = True,
    ) -> None:
        check(temperature=temperature, label_weight=label_weight, projection=projection)
        super().__init__(
            network, beta, stills, head=lambda dim: SimCLRProjectionHead(dim, dim, projection, batch_norm=False)
        )
        self.temperature, self.label_weight = temperature, label_weight
        self.classifier = Classifier(projection)

    def objective(self, out: Out, batch: Batch) -> dict[str, Tensor]:
        """The contrast, and the two cross-entropies."""
        index = batch.index.to(out.z[0].device)
        crossed = self.classifier(out.z, batch.label)
        return {"contrast": nt_xent(*out.z, self.temperature, index).mean(), "label": self.label_weight * crossed}
