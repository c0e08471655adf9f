"""Colours more or less vivid: HSV saturation is scaled and shifted."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group, check_colours


@dataclass(frozen=True)
class Saturate(Corruption[tuple[float, float]]):
    """HSV saturation s becomes min(a s + b, 1), at the same hue and value. Hendrycks and Dietterich, arXiv 1903.12261.

    Constants are (a, b). With v and m the largest and smallest channel, a channel is v (1 - s t) at t = (v - x) / (v -
    m): only s changes. A pixel without colour counts as red, as in the original: b > 0 tints it. Images (batch, 1 or 3
    channels, height, width) in [0, 1]. Grey images are treated as three equal channels and averaged, so the first three
    severities leave them alone. The published constants do not do growing damage: the third is milder than the second.
    Deviation: none but those of every corruption.
    """

    group: ClassVar[Group] = "extra"

    small: tuple[tuple[float, float], ...] = ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))
    large: tuple[tuple[float, float], ...] = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: tuple[float, float], generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """v - (v - x) s' / s where there is colour; draws nothing."""
        check_colours(self, x)
        scale, shift = level
        if x.shape[1] == 1:
            return x * (1 - 2 / 3 * shift)
        value = x.amax(1, keepdim=True)
        spread = value - x.amin(1, keepdim=True)
        grey = spread.clone().eq_(0)  # 1 where there is no colour
        # v s' = min(a (v - m) + b v, v); the distance below v of each channel is that times t
        wanted = torch.minimum(spread * scale + value * shift, value)
        out = value - (value - x).mul_(wanted / (spread + grey))
        if shift > 0:
            red = torch.tensor([0.0, 1.0, 1.0], device=x.device, dtype=x.dtype).reshape(1, 3, 1, 1)
            out -= red * (wanted * grey)
        return out
