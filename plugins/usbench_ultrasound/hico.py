"""HiCo: USCL's pairs contrasted on three levels of a pyramid, and across the levels."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from usbench import Batch, Network, Out
from usbench_ultrasound.contrast import Classifier, check, nt_xent
from usbench_ultrasound.pyramid import TopDown
from usbench_ultrasound.uscl import Mixed


@dataclass
class Levels(Out):
    """The embeddings of each level, finest first; each a list with one entry a view."""

    levels: list[list[Tensor]] = field(default_factory=list)


class HiCo(Mixed):
    """½ Σ NT-Xent between the views on each level + ½ NT-Xent(global; mid, local) in each view + softened labels.

    The levels are those of a feature pyramid, at strides 4, 8 and the deepest. Ours: a map is averaged before its
    linear layer, not flattened; the cross terms are averaged over the two views; the classifier stands on the global
    embedding; its smoothing is shared by the classes seen so far.

    Args:
        temperature: of every contrast.
        label_weight: weight of the cross-entropy.
        beta: λ ~ Beta(beta, beta) of the mixed frames.
        smoothing: of the labels.
        width: channels of the pyramid.
        projection: width of each embedding.
        stills: take part with the images that belong to no video.
    """

    def __init__(
        self,
        network: Network,
        temperature: float = 0.5,
        label_weight: float = 0.2,
        beta: float = 0.5,
        smoothing: float = 0.2,
        width: int = 128,
        projection: int = 256,
        stills: bool = True,
    ) -> None:
        check(temperature=temperature, label_weight=label_weight, width=width, projection=projection)
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing is {smoothing}: in [0, 1)")
        super().__init__(network, beta, stills)
        self.temperature, self.label_weight = temperature, label_weight
        self.pyramid = TopDown(network, (4, 8, network.stride), width)
        self.embed = nn.ModuleList(nn.Linear(width, projection) for _ in range(3))
        self.classifier = Classifier(projection, smoothing)

    def look(self, batch: Batch) -> Levels:
        """Mixed frames through the encoder and the pyramid."""
        with self.autocast():
            maps = self.encode(self.network.encoder, self.mix(batch))
            together = [torch.cat(views) for views in zip(*maps, strict=True)]
            levels = [
                list(embed(level.mean((2, 3))).float().chunk(len(maps)))
                for level, embed in zip(self.pyramid(together), self.embed, strict=True)
            ]
        return Levels(maps, levels=levels)

    def objective(self, out: Out, batch: Batch) -> dict[str, Tensor]:
        """Peers, levels, labels."""
        assert isinstance(out, Levels)
        local, mid, whole = out.levels
        index = batch.index.to(whole[0].device)

        def contrast(one: Tensor, other: Tensor) -> Tensor:
            return nt_xent(one, other, self.temperature, index).mean()

        peer = torch.stack([contrast(*level) for level in out.levels]).sum()
        cross = torch.stack([contrast(g, part) for level in (mid, local) for g, part in zip(whole, level, strict=True)])
        label = self.label_weight * self.classifier(whole, batch.label)
        return {"peer": 0.5 * peer, "cross": 0.5 * cross.sum() / 2, "label": label}
