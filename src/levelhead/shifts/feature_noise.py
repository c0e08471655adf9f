"""Noisy measurements: Gaussian noise on every feature of a table, in units of the feature's own spread."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import standard_normal
from levelhead.shifts._tabular import TableShift, moment, numbers, spread


@dataclass(frozen=True)
class FeatureNoise(TableShift):
    """x + c scale N(0, 1), independent over features; c doubles with each severity.

    x (batch, feature) in the features' own units. `scale`: one standard deviation a feature; None takes those of the
    training rows in an evaluation, and those of the rows given elsewhere. Features that never vary stay as they are.
    Not of a paper: the tabular sibling of GaussianNoise, with our constants.
    """

    levels: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8, 1.6)
    scale: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None and min(self.scale, default=0.0) < 0:
            raise ValueError(f"FeatureNoise: scale wants standard deviations of at least 0, got {self.scale}")

    def measured(self, x: Float[Tensor, "example feature"]) -> Self:
        """See `TableShift`."""
        return self if self.scale is not None else replace(self, scale=numbers(spread(x)))

    def moved(
        self, x: Float[Tensor, "batch feature"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch feature"]:
        """The noisy rows. Raises ValueError where `scale` does not match the features."""
        return x + level * moment(self, "scale", self.scale, spread(x)) * standard_normal(x, generator)
