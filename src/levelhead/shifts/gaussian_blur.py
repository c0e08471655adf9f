"""Gaussian blur: every pixel becomes a weighted mean of its neighbours."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group
from levelhead.shifts._filters import gaussian


@dataclass(frozen=True)
class GaussianBlur(Corruption[float]):
    """Convolution with a Gaussian of standard deviation c pixels, cut at 4 c; edge pixels repeat. arXiv 1903.12261.

    Images (batch, channel, height, width) in [0, 1]. No deviation from the original but those of every corruption.
    """

    group: ClassVar[Group] = "extra"

    small: tuple[float, ...] = (0.4, 0.6, 0.7, 0.8, 1.0)
    large: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 6.0)

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The blurred images; draws nothing."""
        return gaussian(x, level)
