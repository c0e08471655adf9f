"""Zoom blur: the camera moves towards its subject while the shutter is open."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group
from levelhead.shifts._filters import apart, zoom_matrix, zoom_sizes


@dataclass(frozen=True)
class ZoomBlur(Corruption[tuple[float, float]]):
    """The mean of x and of x zoomed into its centre by 1, 1 + step, 1 + 2 step, ... below `end`. arXiv 1903.12261.

    Constants are (end, step). A zoom by z takes the middle ceil(size / z) pixels and enlarges them to round(z ...) by
    linear interpolation. Images (batch, channel, height, width) in [0, 1]. Zooms that come to the same number of pixels
    are computed once. No deviation from the original but those of every corruption; images need not be square.
    """

    group: ClassVar[Group] = "blur"

    small: tuple[tuple[float, float], ...] = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
    large: tuple[tuple[float, float], ...] = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: tuple[float, float], generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """Draws nothing."""
        factors = zooms(*level)
        height, width = x.shape[-2:]
        sizes = Counter((zoom_sizes(height, factor), zoom_sizes(width, factor)) for factor in factors)
        out = x.clone()
        for (tall, wide), times in sizes.items():
            out.add_(apart(x, zoom_matrix(height, *tall), zoom_matrix(width, *wide)), alpha=times)
        return out.div_(len(factors) + 1)


def zooms(end: float, step: float) -> list[float]:
    """What numpy.arange(1, end, step) gives, in its own steps: rounding lets it reach `end` at times."""
    exact = (1 + step) - 1
    return [1 + i * exact for i in range(math.ceil((end - 1) / step))]
