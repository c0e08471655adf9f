"""The last linear layer as a subnetwork: what most Laplace approximations take."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from levelhead.curvature.places import places
from levelhead.curvature.readout import linear_readout
from levelhead.network import Network
from levelhead.tasks.task import Task
from levelhead.types import Reference


@dataclass(frozen=True)
class LastLayer:
    """All weights and biases of the layer that makes the outputs, as flat places.

    The same posterior as Laplace's own "head" with a full matrix, which needs no Jacobians and is quicker. Raises
    CannotCompose where the head has no linear layer.
    """

    reference: ClassVar = Reference(
        "Daxberger et al.", 2021, arxiv="2106.14806", title="Laplace Redux - Effortless Bayesian Deep Learning"
    )

    def __call__(self, network: Network, task: Task) -> Int[Tensor, " selected"]:
        """The chosen places; the task is not read."""
        own = {id(parameter) for parameter in linear_readout(network).parameters()}
        inside = [
            torch.arange(place.start, place.stop)
            for place, (_, parameter) in zip(places(network), network.named_parameters(), strict=True)
            if id(parameter) in own
        ]
        return torch.cat(inside).to(network.device)
