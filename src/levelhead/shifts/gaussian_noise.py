"""Gaussian noise on every channel value, as a sensor in low light makes it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group, standard_normal


@dataclass(frozen=True)
class GaussianNoise(Corruption[float]):
    """x + N(0, c^2), independent over values. Hendrycks and Dietterich, arXiv 1903.12261.

    Images (batch, channel, height, width) in [0, 1]. No deviation from the original but those of every corruption.
    """

    group: ClassVar[Group] = "noise"

    small: tuple[float, ...] = (0.04, 0.06, 0.08, 0.09, 0.10)
    large: tuple[float, ...] = (0.08, 0.12, 0.18, 0.26, 0.38)

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """x + c * noise."""
        return standard_normal(x, generator).mul_(level).add_(x)
