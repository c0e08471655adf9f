"""Noisy measurements: Gaussian noise on every feature of a table, in units of the feature's own spread."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import SEVERITIES, check_severity, standard_normal


@dataclass(frozen=True)
class FeatureNoise:
    """x + c scale N(0, 1), independent over features; c doubles with each severity.

    x (batch, feature) in the features' own units. `scale`: one standard deviation a feature, best those of the training
    rows; None takes those of the rows given, so hand over the whole split then. Features that never vary stay as they
    are. Not of a paper: the tabular sibling of GaussianNoise, with our constants.
    """

    kind: ClassVar[Literal["image", "tabular"]] = "tabular"
    severities: ClassVar[tuple[int, ...]] = SEVERITIES

    levels: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8, 1.6)
    scale: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.severities):
            raise ValueError(f"FeatureNoise: levels wants {len(self.severities)} constants, got {self.levels}")
        if self.scale is not None and min(self.scale, default=0.0) < 0:
            raise ValueError(f"FeatureNoise: scale wants standard deviations of at least 0, got {self.scale}")

    def __call__(
        self, x: Float[Tensor, "batch feature"], severity: int, generator: torch.Generator
    ) -> Float[Tensor, "batch feature"]:
        """The noisy rows; 0 returns them as they are. Raises ValueError where `scale` does not match the features."""
        check_severity(self, severity)
        if severity == 0:
            return x
        if self.scale is not None and len(self.scale) != x.shape[-1]:
            raise ValueError(f"FeatureNoise: scale has {len(self.scale)} numbers, x has {x.shape[-1]} features")
        scale = x.std(0, correction=0) if self.scale is None else x.new_tensor(self.scale)
        return x + self.levels[severity - 1] * scale * standard_normal(x, generator)
