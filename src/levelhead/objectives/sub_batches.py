"""Sub-batches: each row of a batch trains one member instead of all of them."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange

from levelhead.forward import Forward, Objective, Stateless, Term
from levelhead.network import Network
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import CannotCompose, Reference, Scalar

ONE_MEMBER = (
    "SubBatches shares a batch out among the members of one network, and this one has a single member. Put a surgery "
    "with members before it: batch_ensemble, film_ensemble, masksembles or rank1_bnn; or leave sub_batches out"
)


@dataclass(frozen=True)
class SubBatches(Stateless):
    """Member k sees block k of each batch: 1/K of the rows, at the price of one network's step.

    The scheme of the BatchEnsemble paper's section 3.1 and of Masksembles' training; both then train longer (50 % more
    epochs, or larger batches). Without this objective every member sees every row. It belongs first: terms behind it
    act on the rows as they are shared out. A batch that the members do not divide is filled up with its first rows; one
    that is shared out already stays as it is.

    Raises CannotCompose on networks with one member. Wen, Tran & Ba, arXiv 2002.06715; Durasov et al., 2012.08334.
    """

    reference: ClassVar[Reference] = Reference(
        "Wen, Tran and Ba",
        2020,
        arxiv="2002.06715",
        title="BatchEnsemble: An Alternative Approach to Efficient Ensemble and Lifelong Learning",
    )

    def start(self, network: Network, task: Task, run: Run) -> Term:
        """The term of one fit: the spec itself."""
        if network.num_members == 1:
            raise CannotCompose(ONE_MEMBER)
        return self

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective on the batch as it is shared out."""
        members, batch = forward.network.num_members, forward.batch
        if batch.per_member:
            return inner(forward)
        size = -(-len(batch.x) // members)
        rows = torch.arange(members * size, device=batch.x.device) % len(batch.x)
        places = rearrange(rows, "(member batch) -> member batch", member=members)
        own = torch.arange(members, device=rows.device)[:, None]
        hyper = None if batch.hyper is None else batch.hyper[own, places]
        # labels that were smoothed at each member's own rate have a member axis already
        smoothed = hyper is not None and batch.y.is_floating_point() and batch.y.ndim > 2
        y = batch.y[own, places] if smoothed else batch.y[places]
        return inner(forward.on(x=batch.x[rows], y=y, index=batch.index[rows], hyper=hyper, per_member=True))
