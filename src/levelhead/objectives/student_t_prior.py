"""Student's t prior: every weight independent, with tails heavier than a Gaussian's."""

from dataclasses import dataclass
from typing import ClassVar

from levelhead.network import Network
from levelhead.priors.independent import StudentT
from levelhead.priors.paper import PAPER
from levelhead.priors.term import Prior, independent
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Reference


@dataclass(frozen=True)
class StudentTPrior:
    """loss - log p(w) / N,  log p(w) = -(dof + 1)/2 sum_i log(1 + w_i^2 / (dof scale^2)) + constant.

    scale  of every weight and bias (1 / sqrt(10) in the paper); the standard deviation is scale sqrt(dof / (dof - 2)).
    dof    degrees of freedom: 1 is Cauchy's, many are a Gaussian.

    Parameters whose layer wants no decay have no prior here. Raises CannotCompose where that is all of them.
    Izmailov et al., arXiv 2106.11905.
    """

    reference: ClassVar[Reference] = PAPER
    scale: float = 0.316
    dof: float = 5.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"StudentTPrior: scale must be positive, got {self.scale}")
        if not self.dof > 0:
            raise ValueError(f"StudentTPrior: dof must be positive, got {self.dof}")

    def start(self, network: Network, task: Task, run: Run) -> Prior:
        """The term of one fit."""
        return independent(StudentT(self.scale, self.dof), network, len(task.train), author="StudentTPrior")
