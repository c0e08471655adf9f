"""Speckle noise: Gaussian noise that grows with the value it disturbs."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group, standard_normal


@dataclass(frozen=True)
class SpeckleNoise(Corruption[float]):
    """x + x N(0, c^2), independent over values. Hendrycks and Dietterich, arXiv 1903.12261.

    Images (batch, channel, height, width) in [0, 1]. No deviation from the original but those of every corruption.
    """

    group: ClassVar[Group] = "extra"

    small: tuple[float, ...] = (0.06, 0.10, 0.12, 0.16, 0.20)
    large: tuple[float, ...] = (0.15, 0.20, 0.35, 0.45, 0.60)

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """x (1 + c noise)."""
        return standard_normal(x, generator).mul_(level).add_(1.0).mul_(x)
