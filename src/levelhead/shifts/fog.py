"""Fog: a cloudy veil that lightens the image and takes its contrast."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group, uniforms


@dataclass(frozen=True)
class Fog(Corruption[tuple[float, float]]):
    """(x + a plasma) m / (m + a), with m the largest value of the image: a black image stays black.

    Constants are (a, decay). Plasma is the diamond-square fractal on a torus of the power-of-two size that holds the
    image: corner 0; step by step, the middles of squares and then of edges become the mean of four neighbours plus
    w U(-w, w), with w = 100 first and w / decay after each halving; scaled to [0, 1], top left part. Images (batch,
    channel, height, width) in [0, 1], all channels under one veil. Hendrycks and Dietterich, arXiv 1903.12261.
    Deviation: none but those of every corruption.
    """

    group: ClassVar[Group] = "weather"

    small: tuple[tuple[float, float], ...] = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))
    large: tuple[tuple[float, float], ...] = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: tuple[float, float], generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The veiled images."""
        thickness, decay = level
        height, width = x.shape[-2:]
        side = 1 << max(1, (max(height, width) - 1).bit_length())
        veil = plasma(uniforms(x, side * side - 1, generator).mul_(2).sub_(1), decay)
        veil = rearrange(veil[:, :height, :width], "b h w -> b 1 h w")
        most = x.amax((1, 2, 3), keepdim=True)
        return torch.add(x, veil, alpha=thickness).mul_(most / (most + thickness))


def plasma(drawn: Float[Tensor, "batch draw"], decay: float) -> Float[Tensor, "batch side side"]:
    """The fractal from side^2 - 1 draws of U(-1, 1), coarse steps first, in [0, 1]."""
    grid, wibble, used = drawn.new_zeros(len(drawn), 1, 1), 100.0, 0
    while used < drawn.shape[1]:
        size = grid.shape[1]
        fresh = drawn[:, used : used + 3 * size * size] * wibble**2
        square, above, left = rearrange(fresh, "b (three h w) -> three b h w", three=3, h=size)
        middle = grid + grid.roll(-1, 1)
        middle = (middle + middle.roll(-1, 2)) / 4 + square
        top = (middle + middle.roll(1, 1) + grid + grid.roll(-1, 2)) / 4 + above
        side = (middle + middle.roll(1, 2) + grid + grid.roll(-1, 1)) / 4 + left
        woven = torch.stack([torch.stack([grid, top], -1), torch.stack([side, middle], -1)], 2)
        grid = rearrange(woven, "b h down w right -> b (h down) (w right)")
        used, wibble = used + 3 * size * size, wibble / decay
    low, high = grid.amin((1, 2), keepdim=True), grid.amax((1, 2), keepdim=True)
    return (grid - low) / (high - low)
