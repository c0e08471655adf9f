"""The Laplace prior: every weight independent, most of them small, some large."""

from dataclasses import dataclass
from typing import ClassVar

from levelhead.network import Network
from levelhead.priors.independent import DoubleExponential
from levelhead.priors.paper import PAPER
from levelhead.priors.term import Prior, independent
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Reference


@dataclass(frozen=True)
class LaplacePrior:
    """loss - log p(w) / N,  p(w) = prod_i exp(-|w_i| / b) / (2 b),  b = scale / sqrt(2), N the number of training rows.

    scale  standard deviation of every weight and bias (1 / sqrt(3) in the paper).

    MAP under it is an L1 penalty of 1 / (N b). Weights that the data say nothing about keep their prior, as under
    every prior of independent weights. Parameters whose layer wants no decay have no prior here.

    Raises CannotCompose where that is all of them. Izmailov et al., arXiv 2106.11905.
    """

    reference: ClassVar[Reference] = PAPER
    scale: float = 0.577

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"LaplacePrior: scale must be positive, got {self.scale}")

    def start(self, network: Network, task: Task, run: Run) -> Prior:
        """The term of one fit."""
        return independent(DoubleExponential(self.scale), network, len(task.train), author="LaplacePrior")
