"""Meta-USCL: mixed pairs weighted by a small network that is trained so that held-out videos are contrasted better."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.adam import adam

from usbench import Batch, Loss, Network, Video
from usbench.contracts import pooled
from usbench_ultrasound.contrast import check, nt_xent
from usbench_ultrasound.uscl import Three, several


@dataclass(frozen=True)
class Held(Three):
    """Three frames in order of time; of a held-out video one frame, three times."""

    ordered: bool = True
    every: int = 5

    def frames(self, video: Video, progress: float, rng: np.random.Generator) -> np.ndarray:
        """The single frames of held-out videos are what a weight is judged by."""
        if video.index % self.every == 0:
            return rng.integers(len(video)).repeat(3)
        return super().frames(video, progress, rng)


class Pooled(nn.Module):
    """The pooled features of an encoder's maps, as a layer."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps → features."""
        return pooled(maps)


class Scorer(nn.Module):
    """w = σ(MLP([h₁; h₂])), with an Adam of its own whose moments are buffers, so that a checkpoint holds them.

    The parameters are marked as not trained: the harness's optimiser leaves them alone.
    """

    def __init__(self, dim: int, hidden: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.requires_grad_(False)
        for i, p in enumerate(self.layers.parameters()):
            self.register_buffer(f"first_{i}", torch.zeros_like(p))
            self.register_buffer(f"second_{i}", torch.zeros_like(p))
            self.register_buffer(f"steps_{i}", torch.zeros(()))

    def forward(self, pairs: Tensor) -> Tensor:
        """(n, 2 dim) → (n,) in (0, 1)."""
        return self.layers(pairs).squeeze(1).sigmoid()

    @torch.no_grad()
    def update(self, gradients: list[Tensor], lr: float) -> None:
        """One step of Adam."""
        parameters = list(self.layers.parameters())
        held = {key: [self.get_buffer(f"{key}_{i}") for i in range(len(parameters))] for key in ("first", "second")}
        steps = [self.get_buffer(f"steps_{i}") for i in range(len(parameters))]
        # Steps that are counted on the device want the capturable form.
        adam(
            parameters, gradients, held["first"], held["second"], [], steps, capturable=parameters[0].is_cuda,
            amsgrad=False, beta1=0.9, beta2=0.999, lr=lr, weight_decay=0.0, eps=1e-8, maximize=False,
        )  # fmt: skip


class MetaUSCL(Loss):
    """NT-Xent between v₁ = (1−a)x₁ + a·x₂ and v₂ = b·x₂ + (1−b)x₃, each pair weighted by a learned w.

    At every step: one virtual SGD step of encoder and head on the weighted contrast; the unweighted contrast of the
    stepped encoder on two augmentations of single frames of held-out videos; its gradient moves the weights' network;
    then encoder and head are trained on the contrast with the new weights, which they see as constants.

    Ours: every `held_out`-th video is held out for the weights alone; a batch with fewer than two of them leaves the
    weights as they are, and one with fewer than two others trains on all of it. A video of two frames is not mixed; one
    of one frame, and with `stills` an image without a video, gives two augmentations of it.

    Args:
        temperature: of the contrast.
        beta: a, b ~ Beta(beta[0], beta[1]).
        virtual_lr: of the virtual step.
        meta_lr: of the weights' network.
        held_out: every so many-th video.
        projection: width of the embedding.
        stills: take part with the images that belong to no video.
    """

    views = (1, 0)
    item = Held()
    distributed = False

    def __init__(
        self,
        network: Network,
        temperature: float = 0.5,
        beta: tuple[float, float] = (3.0, 5.0),
        virtual_lr: float = 0.1,
        meta_lr: float = 6e-5,
        held_out: int = 5,
        projection: int = 256,
        stills: bool = True,
    ) -> None:
        check(temperature=temperature, virtual_lr=virtual_lr, meta_lr=meta_lr, projection=projection, beta=min(beta))
        if held_out < 2:
            raise ValueError(f"held_out is {held_out}: at least 2, or no video is left to train on")
        super().__init__(network, head=lambda dim: SimCLRProjectionHead(dim, dim, projection, batch_norm=False))
        self.item = Held(every=held_out, stills=stills)
        self.temperature, self.beta = temperature, beta
        self.virtual_lr, self.meta_lr = virtual_lr, meta_lr
        self.scorer = Scorer(network.dim)

    def split(self, batch: Batch) -> tuple[Batch, list[Tensor], Tensor]:
        """The items that are trained on, two views of each held-out one, and which these are; none where too few."""
        held = batch.index.cpu() % self.item.every == 0
        if (~held).sum() < 2:
            return batch, [], batch.index[:0]
        device = batch.views[0].device
        apart, kept = (which.nonzero()[:, 0].to(device, non_blocking=True) for which in (held, ~held))
        views = [view[kept] for view in batch.views]
        learn = replace(batch, views=views, index=batch.index[~held], frame=batch.frame[kept])
        if held.sum() < 2:
            return learn, [], batch.index[:0]
        return learn, [batch.views[0][apart], batch.views[2][apart]], batch.index[held]

    def mix(self, batch: Batch) -> list[Tensor]:
        """The two views of each video."""
        first, between, last = batch.views
        a, b = (torch.from_numpy(batch.rng.beta(*self.beta, len(first))).to(first) for _ in range(2))
        mixed = several(batch.frame)
        a, b = (torch.where(mixed, share, 0.0)[:, None, None, None] for share in (a, b))
        return [torch.lerp(first, between, a), torch.lerp(last, between, b)]

    def contrast(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n,) the contrast of each pair, and its features [h₁; h₂] as constants."""
        out = self.look(replace(batch, views=self.mix(batch)))
        each = nt_xent(*out.z, self.temperature, batch.index.to(out.z[0].device))
        return each, torch.cat(out.features, 1).detach()

    def forward(self, batch: Batch) -> Tensor:
        """The weighted contrast, with the weights as they are."""
        each, pairs = self.contrast(self.split(batch)[0])
        return (self.scorer(pairs) * each).mean()

    def meta_gradient(self, each: Tensor, pairs: Tensor, held: list[Tensor], index: Tensor) -> list[Tensor]:
        """How the contrast of held-out frames after a virtual step depends on the weights' network."""
        whole = nn.Sequential(self.network.encoder, Pooled(), self.projector)
        names, parameters = zip(*whole.named_parameters(), strict=True)
        scorer = {name: p.detach().requires_grad_() for name, p in self.scorer.named_parameters()}
        weighted = (functional_call(self.scorer, scorer, (pairs,)) * each).mean()
        gradients = torch.autograd.grad(weighted, parameters, create_graph=True)
        stepped = {n: p - self.virtual_lr * g for n, p, g in zip(names, parameters, gradients, strict=True)}
        # What the virtual network makes of BatchNorm's statistics goes the way of the virtual network.
        statistics = {name: buffer.clone() for name, buffer in whole.named_buffers()}
        with self.autocast():
            z = functional_call(whole, stepped | statistics, (torch.cat(held),))
        meta = nt_xent(*z.float().chunk(2), self.temperature, index.to(z.device)).mean()
        return list(torch.autograd.grad(meta, list(scorer.values())))

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """The weights first, then encoder and head."""
        self.before_step(batch)
        learn, held, index = self.split(batch)
        each, pairs = self.contrast(learn)
        if held:
            self.scorer.update(self.meta_gradient(each, pairs, held, index), self.meta_lr)
        loss = (self.scorer(pairs) * each).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.after_backward(batch)
        optimizer.step()
        return {"loss": loss.detach()}
