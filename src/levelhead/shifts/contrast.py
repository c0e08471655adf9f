"""Less contrast: values move towards the mean of their channel."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group


@dataclass(frozen=True)
class Contrast(Corruption[float]):
    """(x - mean) c + mean, with the mean of each channel of each image. Hendrycks and Dietterich, arXiv 1903.12261.

    Images (batch, channel, height, width) in [0, 1]. No deviation from the original but those of every corruption.
    """

    group: ClassVar[Group] = "digital"

    small: tuple[float, ...] = (0.75, 0.5, 0.4, 0.3, 0.15)
    large: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1, 0.05)

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """Linear interpolation from the channel's mean to x."""
        return torch.lerp(x.mean((-2, -1), keepdim=True), x, level)
