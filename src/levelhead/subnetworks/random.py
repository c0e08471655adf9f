"""Parameters drawn without replacement: the baseline that every rule has to beat."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.network import Network
from levelhead.subnetworks._rule import Rule
from levelhead.tasks.task import Task
from levelhead.types import Reference


@dataclass(frozen=True)
class Random(Rule):
    """score uniform in [0, 1): every set of k parameters is equally likely. From torch's global stream.

    Without replacement: a place that is drawn twice would count its curvature twice. A strong baseline from a fifth of
    the parameters on. Fields as in every rule.
    """

    reference: ClassVar = Reference(
        "Daxberger et al.", 2021, arxiv="2010.14689", title="Bayesian Deep Learning via Subnetwork Inference"
    )

    def scores(self, network: Network, task: Task) -> Float[Tensor, " parameter"]:
        """See `Rule.scores`."""
        count = sum(parameter.numel() for parameter in network.parameters())
        return torch.rand(count, dtype=torch.float64).to(network.device)
