"""The evidence lower bound: what variational inference maximises, a fit to the data less the distance to the prior."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from levelhead.declared import Posterior
from levelhead.forward import Forward, Objective
from levelhead.network import Network
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import CannotCompose, Reference, Scalar

NO_POSTERIOR = (
    "ELBO: no layer of this network has a posterior over its weights, so there is no distance to a prior. "
    "Put mean_field or rank1_bnn before it: 'mean_field + elbo + adamw(weight_decay=0.0)'; "
    "for a prior over plain weights use the sampler's weight_decay"
)


@dataclass(frozen=True)
class ELBO:
    """-ELBO / N = loss + temperature * ramp * KL(q || prior) / N, KL in closed form, N the number of training rows.

    prior_scale    of the prior of every weight: N(0, prior_scale^2) for mean_field, N(1, prior_scale^2) for rank1_bnn.
                   None is the layers' own: for mean_field the scale that maximises the bound (empirical Bayes),
                   mean(mean^2 + std^2)^(1/2), anew at every step; for rank1_bnn its prior_std.
    temperature    of the posterior: 1 is Bayes' rule; less trusts the data more ("cold"). 0 leaves the prior out.
    anneal_epochs  ramp grows linearly from 0 over that many first epochs, so that layers learn before they are priced.

    The likelihood's part is the mean over the members' losses under one draw of the weights a step. Weights that are
    points have no prior here. Raises CannotCompose at the start of a fit where no layer has a posterior.

    Graves 2011; Blundell et al., arXiv 1505.05424; annealing and empirical Bayes as in Ovadia et al., arXiv 1906.02530.
    """

    reference: ClassVar[Reference] = Reference(
        "Graves", 2011, title="Practical Variational Inference for Neural Networks"
    )
    prior_scale: float | None = None
    temperature: float = 1.0
    anneal_epochs: int = 0

    def __post_init__(self) -> None:
        if self.prior_scale is not None and not self.prior_scale > 0:
            raise ValueError(f"ELBO: prior_scale must be positive, or None for empirical Bayes; got {self.prior_scale}")
        if self.temperature < 0:
            raise ValueError(f"ELBO: temperature must not be negative, got {self.temperature}")
        if self.anneal_epochs < 0:
            raise ValueError(f"ELBO: anneal_epochs must not be negative, got {self.anneal_epochs}")

    def start(self, network: Network, task: Task, run: Run) -> "_Bound":
        """The term of one fit."""
        if not network.layers(Posterior):
            raise CannotCompose(NO_POSTERIOR)
        return _Bound(self, len(task.train))


class _Bound:
    """The bound of one fit: how many rows there are, and how many epochs are done."""

    def __init__(self, spec: ELBO, num_rows: int) -> None:
        self.spec, self.num_rows, self.epochs = spec, num_rows, 0

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        loss = inner(forward)
        weight = self.spec.temperature * self.ramp() / self.num_rows
        return loss + weight * divergence(forward.network, self.spec.prior_scale).to(loss.dtype)

    def ramp(self) -> float:
        """The share of the prior in this epoch."""
        return 1.0 if self.spec.anneal_epochs == 0 else min(1.0, self.epochs / self.spec.anneal_epochs)

    def end_epoch(self, network: Network) -> None:
        """One epoch more is done."""
        self.epochs += 1

    def state_dict(self) -> dict[str, Any]:
        """The epochs done."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.epochs = state["epochs"]


def divergence(network: Network, prior_scale: float | None) -> Scalar:
    """KL(q || prior) of all layers that have a posterior, in nats; each shared layer once."""
    with torch.autocast(network.device.type, enabled=False):  # logarithms of small numbers
        layers = [layer.kl(prior_scale) for layer in network.modules() if isinstance(layer, Posterior)]
        return torch.stack(layers).sum()
