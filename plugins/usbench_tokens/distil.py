"""Self-distillation between views and between masked patches: iBOT and DINOv2."""

from __future__ import annotations

import torch
from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
from lightly.models.modules.heads import ProjectionHead
from torch import Tensor, nn
from torch.nn import functional

from usbench import Batch, Network
from usbench_tokens.base import TokenLoss, at_least
from usbench_tokens.masks import half_masked

FROZEN = 0.01  # of the training: the heads' prototypes hold still
WARM_UP = 0.3  # of the training: the teacher's temperature rises
TEMPERATURE = (0.04, 0.07)  # of the teacher, at the first step and from the end of its warm-up


class PrototypeHead(ProjectionHead):
    """DINO's head: three layers, then products of unit vectors, so that only directions count."""

    def __init__(self, dim: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__(
            [(dim, hidden, None, nn.GELU()), (hidden, hidden, None, nn.GELU()), (hidden, bottleneck, None, None)]
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, dim) → (…, prototypes)."""
        return functional.linear(
            functional.normalize(self.layers(tokens), dim=-1), functional.normalize(self.prototypes)
        )


class Heads(nn.Module):
    """A head for the class token, and one for patches unless they share it."""

    def __init__(self, dim: int, hidden: int, bottleneck: int, prototypes: int, *, shared: bool) -> None:
        super().__init__()
        self.image = PrototypeHead(dim, hidden, bottleneck, prototypes)
        self.own = None if shared else PrototypeHead(dim, hidden, bottleneck, prototypes)

    @property
    def patch(self) -> nn.Module:
        """The head of a patch."""
        return self.own or self.image


class Distillation(TokenLoss):
    """The class token should say of one view what the teacher says of another, and a masked patch what it says of it.

    The teacher sees the global views whole; of the student's, half are masked by blocks that cover 10 to 50 %, counted
    inside the sector. Targets are centred by a running mean and sharpened, as in DINO; DINOv2 centres by
    Sinkhorn-Knopp instead. The heads' prototypes hold still for the first hundredth of the training.

    Args:
        hidden: width of the heads.
        bottleneck: what they narrow to before the prototypes.
        prototypes: outputs of the heads.
        shared: one head for images and patches (iBOT), or one each (DINOv2).
        koleo: weight of spreading the class tokens of each global view over the sphere.
    """

    views = (2, 4)
    teacher = (0.99, 1.0)

    def __init__(
        self,
        network: Network,
        hidden: int = 256,
        bottleneck: int = 64,
        prototypes: int = 1024,
        shared: bool = False,
        koleo: float = 0.0,
    ) -> None:
        at_least(1, hidden=hidden, bottleneck=bottleneck)
        at_least(2, prototypes=prototypes)
        at_least(0, koleo=koleo)
        super().__init__(network, head=lambda dim: Heads(dim, hidden, bottleneck, prototypes, shared=shared))
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, network.dim))
        self.between_views = DINOLoss(prototypes)
        self.between_patches = IBOTPatchLoss(prototypes)
        self.koleo, self.spread = koleo, KoLeoLoss()

    def draw(self, batch: Batch) -> Tensor:
        """(2N, L) bool: the masked patches of the student's global views, one view after the other."""
        views = batch.views[: self.views[0]]
        count, side = sum(map(len, views)), self.side(views[0])
        drawn = torch.from_numpy(half_masked(batch.rng, count, side, (0.1, 0.5))).to(views[0].device, non_blocking=True)
        within = drawn & torch.cat([self.inside(batch, view) for view in range(len(views))])
        # A mask that lies wholly outside the sector stays as it is: a batch without any would have no mean.
        return torch.where(within.any(1, keepdim=True), within, drawn)

    def temperature(self, progress: float) -> float:
        """Of the teacher: it rises linearly, then stays."""
        first, last = TEMPERATURE
        return first + (last - first) * min(1.0, progress / WARM_UP)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The image's part, the patches' part, and the spread where there is one."""
        many = self.views[0]
        whole, masked = torch.cat(batch.views[:many]), self.draw(batch)
        assert isinstance(self.projector, Heads) and isinstance(self.teacher_projector, Heads)
        with self.autocast():
            seen = self.network.encoder.tokens(whole, mask=masked, mask_token=self.mask_token)
            small = self.network.encoder.tokens(torch.cat(batch.views[many:]))[:, 0]
            words = self.projector.image(torch.cat([seen[:, 0], small])).float()
            parts = self.projector.patch(seen[:, 1:][masked]).float()
            with torch.no_grad():
                truth = self.teacher_encoder.tokens(whole)
                said = self.teacher_projector.image(truth[:, 0]).float()
                hidden = self.teacher_projector.patch(truth[:, 1:][masked]).float()
        warm = self.temperature(batch.progress)
        found = {
            "image": self.between_views(list(said.chunk(many)), list(words.chunk(len(batch.views))), teacher_temp=warm),
            "patch": self.between_patches(
                hidden, parts, masked.unflatten(1, (self.side(whole), -1)), teacher_temp=warm
            ),
        }  # fmt: skip
        if self.koleo:
            spread = [self.spread(token) for token in seen[:, 0].float().chunk(many)]
            found["koleo"] = self.koleo * torch.stack(spread).mean()
        return found

    def after_backward(self, batch: Batch) -> None:
        """Hold the prototypes still at the beginning."""
        if batch.progress < FROZEN and isinstance(self.projector, Heads):
            for name, parameter in self.projector.named_parameters():
                if name.endswith("prototypes"):
                    parameter.grad = None
