"""Methods that compare views by how they fall on prototypes or groups."""

from __future__ import annotations

import warnings

import torch
from lightly.loss import DINOLoss, SwaVLoss
from lightly.models.modules.heads import (
    DINOProjectionHead,
    SMoGPredictionHead,
    SMoGProjectionHead,
    SMoGPrototypes,
    SwaVProjectionHead,
    SwaVPrototypes,
)
from lightly.models.modules.memory_bank import MemoryBankModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.nn.utils.parametrize import register_parametrization

from usbench import Batch, Loss, Network, Out
from usbench_lightly.kmeans import kmeans
from usbench_lightly.pairs import check


class SwAV(Loss):
    """Each view should predict the code, an even assignment to prototypes, of each global view but itself.

    Args:
        prototypes: how many.
        queue: past embeddings of each global view that codes are computed with, for small batches; 0 for none.
        queue_start: share of the training after which they are used, once the queue is full of real ones.
        freeze: share of the training in which the prototypes stay.
    """

    def __init__(
        self,
        network: Network,
        prototypes: int = 128,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        queue: int = 512,
        queue_start: float = 0.1,
        freeze: float = 0.01,
        local_views: int = 4,
        hidden: int = 256,
        projection: int = 128,
    ) -> None:
        check(prototypes=prototypes, temperature=temperature, epsilon=epsilon, queue_start=queue_start)
        check(freeze=freeze, local_views=local_views, hidden=hidden, projection=projection)
        if queue < 0:
            raise ValueError(f"queue is {queue}: not below 0")
        super().__init__(network, head=lambda dim: SwaVProjectionHead(dim, hidden, projection))
        self.views = (2, local_views)
        self.freeze, self.queue, self.queue_start = freeze, queue, queue_start
        self.prototypes = SwaVPrototypes(projection, prototypes)
        self.prototypes.heads[0].register_parameter("bias", None)  # the paper's are directions alone
        self.criterion = SwaVLoss(temperature, sinkhorn_epsilon=epsilon)
        self.banks = nn.ModuleList(MemoryBankModule((queue, projection), feature_dim_first=False) for _ in range(2))

    def before_step(self, batch: Batch) -> None:
        """Prototypes lie on the unit sphere."""
        with torch.no_grad():
            self.prototypes.normalize()

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """Swapped prediction between the global views' codes and all other views."""
        z = [normalize(view, dim=1) for view in out.z]
        scores = [self.prototypes(view) for view in z]
        past = None
        if self.queue:
            stored = [bank(view, update=view.requires_grad)[1] for bank, view in zip(self.banks, z[:2], strict=True)]
            full = batch.step * len(z[0]) >= self.queue
            if full and batch.progress >= self.queue_start:
                past = [self.prototypes(rows) for rows in stored]
        return self.criterion(scores[:2], scores[2:], past).squeeze()

    def after_backward(self, batch: Batch) -> None:
        """At first only the features move."""
        if batch.progress < self.freeze:
            self.prototypes.zero_grad(set_to_none=True)


class UnitRows(nn.Module):
    """A weight whose rows have length 1: what is trained is their direction."""

    def forward(self, weight: Tensor) -> Tensor:
        """The rows, normalised."""
        return normalize(weight, dim=1)


def dino_head(dim: int, hidden: int, bottleneck: int, outputs: int, freeze: float) -> DINOProjectionHead:
    """DINO's head with BatchNorm, as the paper has it for convolutional encoders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's, of the weight norm that is replaced here
        head = DINOProjectionHead(dim, hidden, bottleneck, outputs, batch_norm=True, freeze_last_layer=freeze)
    # The paper holds the lengths at 1. As parameters they would be neither trained nor moved by the teacher.
    head.last_layer = register_parametrization(nn.Linear(bottleneck, outputs, bias=False), "weight", UnitRows())
    return head


class DINO(Loss):
    """Each view should give the distribution that the centred, sharpened teacher gives to a global view.

    Args:
        outputs: width of the distributions.
        teacher_temperature: at the start, and from 30 % of the training on.
        freeze: share of the training in which the last layer stays.
    """

    teacher = (0.996, 1.0)

    def __init__(
        self,
        network: Network,
        outputs: int = 1024,
        temperature: float = 0.1,
        teacher_temperature: tuple[float, float] = (0.04, 0.07),
        centre_momentum: float = 0.9,
        freeze: float = 0.01,
        local_views: int = 4,
        hidden: int = 512,
        bottleneck: int = 128,
    ) -> None:
        check(outputs=outputs, temperature=temperature, freeze=freeze, local_views=local_views)
        check(hidden=hidden, bottleneck=bottleneck)
        if not min(teacher_temperature) > 0:
            raise ValueError(f"teacher_temperature is {teacher_temperature}: two values above 0")
        if not 0 <= centre_momentum < 1:
            raise ValueError(f"centre_momentum is {centre_momentum}: in [0, 1)")
        super().__init__(network, head=lambda dim: dino_head(dim, hidden, bottleneck, outputs, freeze))
        self.views = (2, local_views)
        self.teacher_temperature = teacher_temperature
        self.criterion = DINOLoss(outputs, student_temp=temperature, center_momentum=centre_momentum)

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """Cross-entropy of all views against the teacher's other global views; the centre then follows the teacher."""
        first, last = self.teacher_temperature
        sharp = first + (last - first) * min(1.0, batch.progress / 0.3)
        return self.criterion(out.t, out.z, teacher_temp=sharp)

    def after_backward(self, batch: Batch) -> None:
        """lightly counts epochs here; the share of the training that is done serves as well."""
        self.projector.cancel_last_layer_gradients(batch.progress)


class SMoG(Loss):
    """A view should be sorted into the group into which the teacher sorts the other view.

    Groups move with the features of the very step, and the gradient flows through them. They are made anew by k-means
    on past features every now and then, so that none stays empty. Features are taken on the unit sphere.

    Args:
        groups: how many.
        beta: how much of a group stays when the features of a step are mixed in.
        bank: past features that groups are made anew of.
        reset: share of the training between two such times.
    """

    teacher = (0.99, 1.0)

    def __init__(
        self,
        network: Network,
        groups: int = 128,
        temperature: float = 0.1,
        beta: float = 0.99,
        bank: int = 1024,
        reset: float = 0.1,
        hidden: int = 512,
        projection: int = 128,
    ) -> None:
        check(groups=groups, temperature=temperature, beta=beta, reset=reset, hidden=hidden, projection=projection)
        if bank < groups:
            raise ValueError(f"bank is {bank}: at least the number of groups, {groups}")
        super().__init__(
            network,
            head=lambda dim: SMoGProjectionHead(dim, hidden, projection),
            predictor=lambda: SMoGPredictionHead(projection, hidden, projection),
        )
        self.temperature, self.reset = temperature, reset
        self.groups = SMoGPrototypes(normalize(torch.randn(groups, projection), dim=1), beta)
        self.bank = MemoryBankModule((bank, projection), feature_dim_first=False)

    def before_step(self, batch: Batch) -> None:
        """Make the groups anew when it is time and the bank holds nothing but features."""
        every = max(1, round(self.reset * batch.total))
        full = batch.step * 2 * len(batch.views[0]) >= len(self.bank.bank)
        if self.reset and full and batch.step % every == 0:
            _, centres = kmeans(self.bank.bank[None], len(self.groups.group_features), batch.rng)
            self.groups.set_group_features(normalize(centres[0], dim=1))

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """Cross-entropy between the sorting of a view's prediction and the teacher's sorting of the other view."""
        targets = [self.groups.assign_groups(out.t[1]), self.groups.assign_groups(out.t[0])]
        seen = normalize(torch.cat(out.z), dim=1)
        moved = self.groups.get_updated_group_features(seen)
        scores = [self.groups(p, moved, self.temperature) for p in out.p]
        if seen.requires_grad:
            self.groups.set_group_features(moved.detach())
            self.bank(seen, update=True)
        return (cross_entropy(scores[0], targets[0]) + cross_entropy(scores[1], targets[1])) / 2
