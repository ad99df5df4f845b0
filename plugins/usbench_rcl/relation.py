"""The relation contrastive loss: positives are told from negatives by a learned metric, not by a fixed cosine.

The abstract says that the metric is learned and that spatial and frequency augmentations are used; a summary speaks of
pixel-level relations. The formula, the head, the sampling of pairs and the weights are our reconstruction. The nearest
exact ancestor is relational reasoning (Patacchiola & Storkey, NeurIPS 2020): the same head on pairs of a mini-batch.
"""

from __future__ import annotations

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor, nn
from torch.nn import functional

from usbench import Batch, Loss, Network, Out
from usbench.views import between

UNUSED = -1e4  # the score of a pair that must not count, at any temperature


class RelationHead(nn.Module):
    """s(u, v): a small network on the pair, made symmetric by averaging both orders.

    MLP([u; v]) = MLP with first layer W = [A B], so A·u and B·v are computed once and added for every pair.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, hidden, bias=False)
        self.second = nn.Linear(dim, hidden, bias=False)
        self.norm = nn.BatchNorm1d(hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """u and v broadcast against each other, (…, dim) → (…) scores."""
        there = self.first(u) + self.second(v)
        back = self.first(v) + self.second(u)
        both = torch.stack([there, back])
        active = functional.leaky_relu(self.norm(both.flatten(0, -2)))
        return self.out(active).view(both.shape[:-1]).mean(0)


def relation_loss(scores: Tensor, positive: Tensor, form: str, temperature: float, *, both: bool) -> Tensor:
    """The loss of a (rows, columns) table of scores, of which `positive` says which are positives.

    bce and mse weigh positives and negatives alike, however many there are of each; infonce is a softmax over each row
    and, where `both`, over each column too.
    """
    if form == "infonce":
        scaled = scores / temperature
        rows = -scaled.log_softmax(1)[positive].mean()
        return (rows - scaled.log_softmax(0)[positive].mean()) / 2 if both else rows
    if form == "bce":
        return functional.softplus(-scores[positive]).mean() + functional.softplus(scores[~positive]).mean()
    return (scores[positive].sigmoid() - 1).square().mean() + scores[~positive].sigmoid().square().mean()


class RelationContrast(Loss):
    """Two views of an image should relate, views of two images should not, by a metric that is learned with them.

    Args:
        form: "infonce", "bce" or "mse": what is made of the scores.
        negatives: "all" pairs of different images, or one each by cyclic "shift".
        temperature: of the infonce form.
        hidden: width of the relation head.
        projection: width of the projector before it; 0 for none.
        nt_xent_weight: weight of an added fixed-metric contrast (NT-Xent, temperature 0.1).
        dense_weight: weight of the same relation between pixels of the two views; 0 switches it off.
        dense_points: pixels drawn for each image.
        dense_stride: which map of the encoder they are read from.
        dense_hidden: width of the pixels' relation head.
    """

    def __init__(
        self,
        network: Network,
        form: str = "infonce",
        negatives: str = "all",
        temperature: float = 1.0,
        hidden: int = 256,
        projection: int = 128,
        nt_xent_weight: float = 0.0,
        dense_weight: float = 0.5,
        dense_points: int = 48,
        dense_stride: int = 8,
        dense_hidden: int = 64,
    ) -> None:
        if form not in ("infonce", "bce", "mse"):
            raise ValueError(f"form is '{form}': one of infonce, bce, mse")
        if negatives not in ("all", "shift"):
            raise ValueError(f"negatives is '{negatives}': one of all, shift")
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}: above 0")
        least = {
            "hidden": (hidden, 1), "projection": (projection, 0), "nt_xent_weight": (nt_xent_weight, 0),
            "dense_weight": (dense_weight, 0), "dense_points": (dense_points, 2), "dense_hidden": (dense_hidden, 1),
        }  # fmt: skip
        for name, (value, low) in least.items():
            if not value >= low:
                raise ValueError(f"{name} is {value}: at least {low}")
        head = (lambda dim: SimCLRProjectionHead(dim, max(dim, projection), projection)) if projection else None
        super().__init__(network, head=head)
        self.form, self.negatives, self.temperature = form, negatives, temperature
        self.relation = RelationHead(projection or network.dim, hidden)
        self.nt_xent_weight = nt_xent_weight
        self.nt_xent = NTXentLoss(temperature=0.1)
        self.dense_weight, self.dense_points = dense_weight, dense_points
        if dense_weight:
            self.level, channels = self._map_of_stride(network, dense_stride)
            self.dense_relation = RelationHead(channels, dense_hidden)

    @staticmethod
    @torch.no_grad()
    def _map_of_stride(network: Network, stride: int) -> tuple[int, int]:
        side = 2 * network.stride
        training = network.training
        maps = network.eval().encoder(torch.zeros(1, 1, side, side))
        network.train(training)
        strides = [side // level.shape[-1] for level in maps]
        if stride not in strides:
            raise ValueError(f"dense_stride is {stride}: the encoder's maps have the strides {strides}")
        return strides.index(stride), maps[strides.index(stride)].shape[1]

    def objective(self, out: Out, batch: Batch) -> dict[str, Tensor]:
        """The image-level relation, and what is switched on beside it."""
        u, v = out.z or out.features
        parts = {"relation": self._image(u, v)}
        if self.nt_xent_weight:
            parts["nt_xent"] = self.nt_xent_weight * self.nt_xent(u, v)
        if self.dense_weight:
            maps = [level[self.level].float() for level in out.maps]
            parts["dense"] = self.dense_weight * self._dense(maps, batch)
        return parts

    def _image(self, u: Tensor, v: Tensor) -> Tensor:
        n = len(u)
        if self.negatives == "all":
            scores = self.relation(u[:, None], v[None])
            positive = torch.eye(n, dtype=torch.bool, device=u.device)
        else:
            scores = self.relation(u[:, None], torch.stack([v, v.roll(1, 0)], 1))
            positive = torch.tensor([True, False], device=u.device).expand(n, 2)
        return relation_loss(scores, positive, self.form, self.temperature, both=self.negatives == "all")

    def _dense(self, maps: list[Tensor], batch: Batch) -> Tensor:
        """The same place seen in both views is a positive; another place, and another image, are negatives."""
        n, k = len(maps[0]), self.dense_points
        points = torch.from_numpy(batch.rng.uniform(-0.95, 0.95, (n, k, 2)).astype("float32")).to(maps[0].device)
        matrix = between(batch.geometry[0], batch.geometry[1])
        there = points @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2]
        seen = (there.abs() < 0.95).all(-1)
        u, v = (_read(level, where) for level, where in zip(maps, (points, there), strict=True))
        # Another place of the same image, the next point; another image, the next one in the batch.
        candidates = torch.stack([v, v.roll(1, 1), v.roll(1, 0), v.roll(2, 0)], 2)
        scores = self.dense_relation(u[:, :, None], candidates).view(n * k, 4)
        # A place that the second view does not show is no negative either, nor is the image itself in a batch of two.
        far = (there - there.roll(1, 1)).square().sum(-1).sqrt() > 0.25
        negative = torch.stack([far & seen.roll(1, 1), seen.roll(1, 0), seen.roll(2, 0) & (n > 2)], 2).view(n * k, 3)
        scores[:, 1:].masked_fill_(~negative, UNUSED)
        count = negative.sum(1).clamp_min(1)
        weight = seen.view(-1).float()
        if self.form == "infonce":
            each = -(scores / self.temperature).log_softmax(1)[:, 0]
        elif self.form == "bce":
            each = functional.softplus(-scores[:, 0]) + functional.softplus(scores[:, 1:]).sum(1) / count
        else:
            each = (scores[:, 0].sigmoid() - 1).square() + scores[:, 1:].sigmoid().square().sum(1) / count
        return (each * weight).sum() / weight.sum().clamp_min(1)


def _read(level: Tensor, points: Tensor) -> Tensor:
    """(n, c, h, w) at (n, k, 2) → (n, k, c); the rim's pixels reach outwards, so that no black is mixed in."""
    read = functional.grid_sample(level, points[:, None], padding_mode="border", align_corners=False)
    return read[:, :, 0].transpose(1, 2)
