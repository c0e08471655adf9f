"""Frosted glass: pixels swap places with near ones, between two light blurs."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.shifts._base import Corruption, Group, truncated, uniforms
from levelhead.shifts._filters import gaussian


@dataclass(frozen=True)
class GlassBlur(Corruption[tuple[float, int, int]]):
    """Gaussian blur, cut to 8 bits; every pixel takes the place of a near one, some times over; Gaussian blur again.

    Constants are (s, d, n): standard deviation s; n passes, in which the pixel at (h, w), for h and w from size - d
    down to d + 1, becomes the one at (h + i, w + j) with i, j drawn from {-d, ..., d - 1}. "Becomes": the original's
    swap of array views copies. A pixel that came earlier in the pass is already changed: chains of copies are followed
    for all pixels at once, with the loop's result. Images (batch, channel, height, width) in [0, 1].
    Hendrycks and Dietterich, arXiv 1903.12261. Deviation: grey images are copied like coloured ones (as scalars, the
    original would swap them).
    """

    group: ClassVar[Group] = "blur"

    small: tuple[tuple[float, int, int], ...] = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
    large: tuple[tuple[float, int, int], ...] = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))

    def distort(
        self,
        x: Float[Tensor, "batch channel height width"],
        level: tuple[float, int, int],
        generator: torch.Generator,
    ) -> Float[Tensor, "batch channel height width"]:
        """Blur, copy, blur."""
        sigma, reach, passes = level
        height, width = x.shape[-2:]
        pixels = truncated(gaussian(x, sigma))
        tall, wide = height - 2 * reach, width - 2 * reach
        if min(tall, wide) <= 0:
            return gaussian(pixels, sigma)
        drawn = uniforms(x, passes * 2 * tall * wide, generator)
        moves = drawn.mul_(2 * reach).floor_().sub_(reach).long()
        for move in rearrange(moves, "b (p two h w) -> p two b h w", p=passes, two=2, h=tall):
            pixels = copied(pixels, sources(move, reach, height, width))
        return gaussian(pixels, sigma)


def copied(
    x: Float[Tensor, "batch channel height width"], source: Int[Tensor, "batch height width"]
) -> Float[Tensor, "batch channel height width"]:
    """Each pixel replaced by the one whose place in the flattened image is given."""
    places = rearrange(source, "b h w -> b 1 (h w)").expand(-1, x.shape[1], -1)
    return rearrange(rearrange(x, "b c h w -> b c (h w)").gather(2, places), "b c (h w) -> b c h w", h=x.shape[2])


def sources(
    move: Int[Tensor, "2 batch tall wide"], reach: int, height: int, width: int
) -> Int[Tensor, "batch {height} {width}"]:
    """Where in the flattened image each pixel comes from after one pass with these moves (down, right)."""
    place = torch.arange(height * width, device=move.device).reshape(height, width)
    inner = slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1)
    wanted = place.repeat(move.shape[1], 1, 1)
    wanted[:, inner[0], inner[1]] += move[0] * width + move[1]
    if reach == 1:  # moves go up and left alone, to pixels that are still as they were
        return wanted
    # a place below `size` stands for a pixel after the pass, one from `size` on for the pixel before it
    size = height * width
    touched = torch.zeros(height, width, dtype=torch.bool, device=move.device)
    touched[inner] = True
    later = touched.flatten()[wanted] & (wanted > place)  # the pass runs backwards: what lies behind came first
    chain = rearrange(wanted + size * ~later, "b h w -> b (h w)")
    while bool((chain < size).any()):
        chain = torch.where(chain < size, chain.gather(1, chain.clamp_max(size - 1)), chain)
    return rearrange(chain - size, "b (h w) -> b h w", h=height)
