"""The parameters that contribute most to the predictive variance of the training rows."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.parameter_sums import contributions
from levelhead.network import Network
from levelhead.subnetworks._rule import Rule
from levelhead.tasks.task import Task


@dataclass(frozen=True)
class Contribution(Rule):
    """score = R_d / (h_d + prior_precision),  R_d = sum_n |J_n[:, d]|^2,  h_d the diagonal of the curvature.

    The variance of the logits (or of the means of real targets), summed over training rows, that parameter d alone
    would add under a diagonal Laplace posterior: this library's answer to variances that no output feels. One pass over
    task.train with a Jacobian a row.
    prior_precision > 0; raises ValueError otherwise, and CannotCompose for members or pixels. Other fields as in every
    rule.
    """

    prior_precision: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prior_precision > 0:
            raise ValueError(f"Contribution: prior_precision must be positive, got {self.prior_precision}")

    def scores(self, network: Network, task: Task) -> Float[Tensor, " parameter"]:
        """See `Rule.scores`."""
        return contributions(network, task.train, self.prior_precision)
