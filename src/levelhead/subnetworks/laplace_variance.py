"""The parameters with the largest marginal variance under a diagonal Laplace posterior: the rule taken literally."""

import warnings
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from levelhead.curvature.chosen import explained
from levelhead.curvature.parameter_sums import contributions, curvature_root, squares
from levelhead.network import Network
from levelhead.subnetworks._rule import Rule
from levelhead.tasks.task import Task

DEGENERATE = 0.1  # of what as many parameters drawn at random would explain on average
WARNING = (
    "LaplaceVariance: the {num} chosen parameters explain {share:.1e} of the predictive variance, where as many random "
    "ones would explain {even:.1e}: the posterior over them predicts what the trained weights do. Choose with "
    "SWAGVariance() or Contribution()"
)


@dataclass(frozen=True)
class LaplaceVariance(Rule):
    """score = 1 / (h_d + prior_precision),  h_d the diagonal of the generalised Gauss-Newton matrix over task.train.

    The order does not depend on prior_precision, which only the warning reads. Parameters without curvature come first,
    and those are often the ones without any effect: the posterior then predicts what theta* does. It warns where the
    chosen set explains less than a tenth of the predictive variance that as many random parameters would. Take
    SWAGVariance or Contribution instead. prior_precision > 0; raises ValueError otherwise, and CannotCompose for
    members or pixels. Other fields as in every rule, but that dead parameters may be chosen.
    """

    exclude_dead: bool = False
    prior_precision: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prior_precision > 0:
            raise ValueError(f"LaplaceVariance: prior_precision must be positive, got {self.prior_precision}")

    def scores(self, network: Network, task: Task) -> Float[Tensor, " parameter"]:
        """See `Rule.scores`."""
        return 1 / (squares(network, task.train, curvature_root(network)) + self.prior_precision)

    def __call__(self, network: Network, task: Task) -> Int[Tensor, " selected"]:
        """The chosen places. Reads task.train."""
        chosen = super().__call__(network, task)
        share = explained(chosen, contributions(network, task.train, self.prior_precision))
        even = len(chosen) / sum(parameter.numel() for parameter in network.parameters())
        if share < DEGENERATE * even:
            warnings.warn(WARNING.format(num=len(chosen), share=share, even=even), stacklevel=2)
        return chosen
