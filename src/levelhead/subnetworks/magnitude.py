"""The largest weights: what pruning would keep."""

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
class Magnitude(Rule):
    """score = |theta*_d|. A baseline that asks for no data; fields as in every rule."""

    reference: ClassVar = Reference(
        "Daxberger et al.", 2021, arxiv="2010.14689", title="Bayesian Deep Learning via Subnetwork Inference"
    )

    def scores(self, network: Network, task: Task) -> Float[Tensor, " parameter"]:
        """See `Rule.scores`."""
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).abs()
