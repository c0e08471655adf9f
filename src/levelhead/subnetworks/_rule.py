"""What the rules share that choose a subnetwork: how many places, which may be chosen, the highest scores win."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from levelhead.curvature.places import alive, candidates, largest
from levelhead.network import Network
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose, Reference


@dataclass(frozen=True)
class Rule(ABC):
    """(network, task) -> flat places of parameters, sorted and unique: those with the highest scores.

    k             how many: a number, or a share in (0, 1] of the parameters that may be chosen.
    include       patterns of the parameters' names that may be chosen; normalisation layers only with `norms`.
    exclude_dead  leave out parameters that move no prediction of a training row: weights of dead units, and what moves
                  the noise of real targets alone. Where fewer than k are alive, fewer are chosen.

    Raises ValueError for k below 1 or above what may be chosen, and where no name matches. Draws from torch's global
    stream. The network is untouched.
    """

    reference: ClassVar = Reference(
        "Daxberger et al.", 2021, arxiv="2010.14689", title="Bayesian Deep Learning via Subnetwork Inference"
    )
    k: int | float = 0.01
    include: tuple[str, ...] = ("*weight*",)
    norms: bool = False
    exclude_dead: bool = True

    def __post_init__(self) -> None:
        whole = isinstance(self.k, int)
        if isinstance(self.k, bool) or not (self.k >= 1 if whole else 0 < self.k <= 1):
            raise ValueError(
                f"{type(self).__name__}: k must be a number, at least 1, or a share in (0, 1], got {self.k}"
            )
        include: Any = self.include
        if not (isinstance(include, tuple) and all(isinstance(pattern, str) for pattern in include)):
            raise ValueError(
                f"{type(self).__name__}: include must be a tuple of patterns, such as ('*weight*',), got {include!r}"
            )

    @abstractmethod
    def scores(self, network: Network, task: Task) -> Float[Tensor, " parameter"]:
        """A number for every parameter of the network, higher for those to choose first."""

    def __call__(self, network: Network, task: Task) -> Int[Tensor, " selected"]:
        """The chosen places. Reads task.train."""
        among = candidates(network, self.include, norms=self.norms)
        num = self.k if isinstance(self.k, int) else max(1, round(self.k * len(among)))
        if num > len(among):
            raise ValueError(
                f"{type(self).__name__}: k={num}, and only {len(among)} parameters match include={self.include}; lower "
                "k, write a share such as k=0.1, or include more"
            )
        if self.exclude_dead:
            among = among[alive(network, task.train)[among]]
            if not len(among):
                raise CannotCompose(
                    f"{type(self).__name__}: no parameter that may be chosen moves any output, so there is nothing to "
                    "be uncertain about. Train longer, or lower the learning rate"
                )
        return largest(self.scores(network, task)[among], among, min(num, len(among)))
