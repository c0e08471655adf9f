"""Impulse noise: dead and hot values, also called salt and pepper."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group, uniforms


@dataclass(frozen=True)
class ImpulseNoise(Corruption[float]):
    """A share c of the channel values becomes 0 or 1, with even odds and independently. arXiv 1903.12261.

    Images (batch, channel, height, width) in [0, 1]. Deviation: one draw tells both whether and where to, where
    the original (scikit-image) takes two; the distribution is the same.
    """

    group: ClassVar[Group] = "noise"

    small: tuple[float, ...] = (0.01, 0.02, 0.03, 0.05, 0.07)
    large: tuple[float, ...] = (0.03, 0.06, 0.09, 0.17, 0.27)

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """Draws v of U(-1, 1) beyond 1 - c either way move a value out of [0, 1], to be clipped."""
        drawn = uniforms(x, x[0].numel(), generator).reshape(x.shape).mul_(2).sub_(1)
        return F.hardshrink(drawn, 1 - level).mul_(2 / (1 - level)).add_(x)
