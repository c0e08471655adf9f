"""Motion blur: the camera moves in a straight line while the shutter is open."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group, uniforms
from levelhead.shifts._filters import motion


@dataclass(frozen=True)
class MotionBlur(Corruption[tuple[int, float]]):
    """Blurred to one side along a line, as ImageMagick does it, at an angle drawn from U(-45, 45) degrees an image.

    Constants are (radius r, standard deviation s) in pixels: sum_i k_i x(p + o_i) with 2 r + 1 taps, k_i proportional
    to exp(-i^2 / 2 s^2), at whole-pixel offsets o_i = (ceil(i cos - 1/2), ceil(i sin - 1/2)), edge pixels repeated. One
    side only: the image moves as well as blurs. Images (batch, channel, height, width) in [0, 1]. Hendrycks and
    Dietterich, arXiv 1903.12261. The result is rounded, not truncated, to 8 bits, as ImageMagick does it.
    Deviation: taps below 1e-7 are left out.
    """

    group: ClassVar[Group] = "blur"

    small: tuple[tuple[int, float], ...] = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))
    large: tuple[tuple[int, float], ...] = ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0))

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: tuple[int, float], generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """Half a level is added, which truncation turns into rounding."""
        angle = uniforms(x, 1, generator)[:, 0] * 90 - 45
        return motion(x, angle, radius=level[0], sigma=level[1]).add_(0.5 / 255)
