"""Parameters drawn without replacement: the baseline that every rule has to beat."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.network import Network
from levelhead.subnetworks._rule import Rule
from levelhead.tasks.task import Task


@dataclass(frozen=True)
class Random(Rule):
    """score uniform in [0, 1): every set of k parameters is equally likely. From torch's global stream.

    Without replacement: a place that is drawn twice would count its curvature twice. A strong baseline from a fifth of
    the parameters on. Fields as in every rule.
    """

    def scores(self, network: Network, task: Task) -> Float[Tensor, " parameter"]:
        """See `Rule.scores`."""
        count = sum(parameter.numel() for parameter in network.parameters())
        return torch.rand(count, dtype=torch.float64).to(network.device)
