"""The largest weights: what pruning would keep."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.network import Network
from levelhead.subnetworks._rule import Rule
from levelhead.tasks.task import Task


@dataclass(frozen=True)
class Magnitude(Rule):
    """score = |theta*_d|. A baseline that asks for no data; fields as in every rule."""

    def scores(self, network: Network, task: Task) -> Float[Tensor, " parameter"]:
        """See `Rule.scores`."""
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).abs()
