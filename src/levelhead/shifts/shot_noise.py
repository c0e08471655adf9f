"""Shot noise: the counts of a sensor that sees few photons."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group


@dataclass(frozen=True)
class ShotNoise(Corruption[float]):
    """Poisson(c x) / c, independent over values: mean x, variance x / c. Hendrycks and Dietterich, arXiv 1903.12261.

    Images (batch, channel, height, width) in [0, 1]. No deviation from the original but those of every corruption.
    """

    group: ClassVar[Group] = "noise"

    small: tuple[float, ...] = (500.0, 250.0, 100.0, 75.0, 50.0)
    large: tuple[float, ...] = (60.0, 25.0, 12.0, 5.0, 3.0)

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """Counts at rate c x, scaled back; drawn on the generator's device."""
        rate = (x * level).to(generator.device)
        return torch.poisson(rate, generator=generator).to(x.device).div_(level)
