"""MIMO's batches: each member gets the rows in an order of its own."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from levelhead.forward import Forward, Objective, Stateless, Term
from levelhead.layers.slots import Slots
from levelhead.network import Network
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import CannotCompose, Reference, Scalar

NO_SLOTS = (
    "MIMOBatches gives each slot of a network other rows, and this one has no slots. Put the surgery mimo before it: "
    "'mimo(num_members=3) + mimo_batches'"
)


@dataclass(frozen=True)
class MIMOBatches(Stateless):
    """sum_m -log p_m(y_m | x_1, ..., x_M), each slot with the batch's rows in its own order, as a mean over rows.

    repetitions  the batch stands so often in the rows of a step, which makes as many passes as that over the trunk.
    common       share of rows that are the same in all slots (rho): 0 gives independent subnetworks, 1 one network; 0.6
                 for the paper's ImageNet ResNet-50, whose width does not allow more independence.

    It belongs first: terms behind it act on the rows as they stand in the slots. Raises CannotCompose at the start of a
    fit on a network without slots.

    Havasi et al., arXiv 2010.06610.
    """

    reference: ClassVar[Reference] = Reference(
        "Havasi et al.",
        2021,
        arxiv="2010.06610",
        title="Training Independent Subnetworks for Robust Prediction",
    )
    repetitions: int = 4
    common: float = 0.0

    def __post_init__(self) -> None:
        if self.repetitions < 1:
            raise ValueError(f"MIMOBatches: repetitions must be at least 1, got {self.repetitions}")
        if not 0 <= self.common <= 1:
            raise ValueError(f"MIMOBatches: common must be in [0, 1], got {self.common}")

    def start(self, network: Network, task: Task, run: Run) -> Term:
        """The term of one fit: the spec itself."""
        if not network.layers(Slots):
            raise CannotCompose(NO_SLOTS)
        return self

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective on the rows as they stand in the slots."""
        members, batch = forward.network.num_members, forward.batch
        if batch.per_member:
            return inner(forward)
        slots = torch.stack(self.orders(len(batch.x), members)).to(batch.x.device)
        rows = slots.flatten()
        mixed = forward.on(x=batch.x[rows], y=batch.y[slots], index=batch.index[rows], per_member=True)
        return members * inner(mixed)

    def orders(self, size: int, members: int) -> list[torch.Tensor]:
        """The rows of each slot; from torch's global stream."""
        base = torch.arange(size).repeat(self.repetitions)[torch.randperm(size * self.repetitions)]
        own = round((1 - self.common) * len(base))
        return [torch.cat([base[:own][torch.randperm(own)], base[own:]]) for _ in range(members)]
