"""The sum-filter prior: filters of the first layer that sum to little, against shifts of brightness."""

from dataclasses import dataclass
from typing import ClassVar

from levelhead.network import Network
from levelhead.priors.filters import SummedFilters
from levelhead.priors.independent import Gaussian
from levelhead.priors.inputs import first_layers
from levelhead.priors.paper import PAPER
from levelhead.priors.term import Prior, independent
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import Reference


@dataclass(frozen=True)
class SumFilterPrior:
    """loss - log p(w) / N,  -log p(w) = |w|^2 / (2 scale^2) + strength / 2 sum_f |sum_k w_fk| + constant.

    f runs over the filters of the first layer, k over a filter's places: a convolution's kernel for one channel in and
    one out, or all inputs of a linear layer's neuron. An input that grows brighter everywhere moves a pre-activation by
    the filter's sum; a posterior that averages over large sums meets such inputs with noise.

    scale     standard deviation of every weight and bias.
    strength  of the penalty on sums; the paper's is its weight decay, 1 / scale^2.

    Parameters whose layer wants no decay have no prior here. Raises CannotCompose where no linear layer or convolution
    reads the input. Izmailov et al., arXiv 2106.11905.
    """

    reference: ClassVar[Reference] = PAPER
    scale: float = 0.1
    strength: float = 100.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"SumFilterPrior: scale must be positive, got {self.scale}")
        if self.strength < 0:
            raise ValueError(f"SumFilterPrior: strength must not be negative, got {self.strength}")

    def start(self, network: Network, task: Task, run: Run) -> Prior:
        """The term of one fit."""
        layers = first_layers(network, author="SumFilterPrior")
        pieces = [SummedFilters(network, layer.name, scale=self.scale, strength=self.strength) for layer in layers]
        return independent(Gaussian(self.scale), network, len(task.train), author="SumFilterPrior", besides=pieces)
