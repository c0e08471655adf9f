"""What minimum-norm attacks share: how they face a predictor, and the nearest error found for each row."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from levelhead.attacks._ball import Norm, length
from levelhead.attacks._victim import Victim, facing
from levelhead.predictor import Predictor
from levelhead.types import Targets


class MinNormResult(NamedTuple):
    """The nearest errors found.

    x         the points; where none was found, the clean ones.
    distance  |x' - x| in the attack's norm: 0 for rows that were wrong before, infinite where nothing was found.
    success   whether the predictor errs at x'.
    """

    x: Float[Tensor, "batch *input"]
    distance: Float[Tensor, " batch"]
    success: Bool[Tensor, " batch"]


class MinNorm(ABC):
    """An `Attack` around a search for the nearest errors."""

    def __call__(
        self, predictor: Predictor, x: Float[Tensor, "batch *input"], y: Targets, generator: torch.Generator
    ) -> Float[Tensor, "batch *input"]:
        """See `Attack`: the points of `nearest`, however far they are."""
        return self.nearest(predictor, x, y, generator).x

    def nearest(
        self, predictor: Predictor, x: Float[Tensor, "batch *input"], y: Targets, generator: torch.Generator
    ) -> MinNormResult:
        """The nearest errors found, and how far they are."""
        with facing(predictor, x, y, generator) as victim:
            return self.search(victim)

    def on(self, victim: Victim) -> Float[Tensor, "batch *input"]:
        """See `Attack`."""
        return self.search(victim).x

    @abstractmethod
    def search(self, victim: Victim) -> MinNormResult:
        """`nearest` of rows that are already faced."""


class Nearest:
    """Of all errors that were tried, each row's nearest. Rows that are wrong already are done at distance 0."""

    def __init__(self, victim: Victim, norm: Norm, *, draws: int) -> None:
        self.norm, self.clean = norm, victim.x
        self.x = victim.x.clone()
        wrong = victim.margin(victim.x, victim.rows, draws=draws) > 0
        self.distance = torch.where(wrong, 0.0, torch.full((len(wrong),), torch.inf).to(victim.x))
        self.todo: Int[Tensor, " row"] = victim.rows[~wrong]

    def keep(
        self, rows: Int[Tensor, " row"], moved: Float[Tensor, "row *input"], margin: Float[Tensor, " row"]
    ) -> None:
        """Take errors that are nearer than before."""
        distance = length(moved - self.clean[rows], self.norm)
        better = (margin > 0) & (distance < self.distance[rows])
        self.x[rows[better]] = moved[better]
        self.distance[rows[better]] = distance[better]

    @property
    def result(self) -> MinNormResult:
        """What was found."""
        return MinNormResult(self.x, self.distance, self.distance.isfinite())
