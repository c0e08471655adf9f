"""The Gaussian prior: every weight independent, of mean zero, as Bayesian networks have it by default."""

from dataclasses import dataclass
from typing import ClassVar

from levelhead.network import Network
from levelhead.priors.independent import Gaussian
from levelhead.priors.paper import PAPER
from levelhead.priors.term import Prior, independent
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Reference


@dataclass(frozen=True)
class GaussianPrior:
    """loss - log p(w) / N,  p(w) = prod_i N(w_i; 0, scale^2), N the number of training rows.

    scale  standard deviation of every weight and bias; 1 / sqrt(weight decay of the summed log joint).

    Under a gradient sampler it is weight decay 1 / (N scale^2): set the sampler's own to 0 beside it. Under HMC and the
    Langevin samplers it is the prior of the posterior they draw from. Along inputs that do not vary in training the
    posterior of the first layer's weights is this prior, whatever the data; `emp_cov_prior` takes that away.
    Parameters whose layer wants no decay (members' vectors, layers with a posterior) have no prior here.

    Raises CannotCompose where that is all of them. Izmailov et al., arXiv 2106.11905, whose networks have scale 0.1.
    """

    reference: ClassVar[Reference] = PAPER
    scale: float = 0.1

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"GaussianPrior: scale must be positive, got {self.scale}")

    def start(self, network: Network, task: Task, run: Run) -> Prior:
        """The term of one fit."""
        return independent(Gaussian(self.scale), network, len(task.train), author="GaussianPrior")
