"""Spatter: drops of water or mud on the lens."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group, check_colours, normals
from levelhead.shifts._edges import box, canny, distance, emboss, equalised
from levelhead.shifts._filters import gaussian

Level = tuple[float, float, float, float, float, bool]
WATER, MUD = (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)
FAR = 20  # pixels from the rim, beyond which water is equally thick


@dataclass(frozen=True)
class Spatter(Corruption[Level]):
    """Smooth noise above a threshold is liquid: pale turquoise water adds light, brown mud covers. arXiv 1903.12261.

    Constants are (mean, spread, s, threshold, mix, mud). Liquid is G_s(N(mean, spread^2)), 0 below the threshold.
    Water: Canny edges (50, 150) of the 8-bit liquid, the distance to them up to 20, smoothed (3 x 3), equalised,
    embossed and smoothed; x + mix m (175, 238, 238) / 255, m = liquid times that, scaled to at most 1 in each image.
    Mud: m = G_mix of the liquid's mask, 0 below 0.8; x (1 - m) + m (63, 42, 20) / 255. Images (batch, 1 or 3 channels,
    height, width) in [0, 1]; grey images take the mean of the colour. The constants do not do growing damage: water and
    mud differ.
    Deviations: distances are Euclidean, where OpenCV's 5 x 5 mask is up to 2 % off; an image without a drop stays as it
    is, where the original divides 0 by 0.
    """

    group: ClassVar[Group] = "extra"

    small: tuple[Level, ...] = (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1.0, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    )
    large: tuple[Level, ...] = (
        (0.65, 0.3, 4.0, 0.69, 0.6, False),
        (0.65, 0.3, 3.0, 0.68, 0.6, False),
        (0.65, 0.3, 2.0, 0.68, 0.5, False),
        (0.65, 0.3, 1.0, 0.65, 1.5, True),
        (0.67, 0.4, 1.0, 0.65, 1.5, True),
    )

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: Level, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The scene behind the drops."""
        check_colours(self, x)
        mean, spread, sigma, threshold, mix, mud = level
        height, width = x.shape[-2:]
        drawn = rearrange(normals(x, height * width, generator), "b (h w) -> b h w", h=height)
        liquid = gaussian(drawn.mul(spread).add_(mean), sigma)
        colour = x.new_tensor(MUD if mud else WATER)
        colour = colour.mean(0, keepdim=True) if x.shape[1] == 1 else colour
        if mud:
            cover = rearrange(gaussian((liquid > threshold).to(x.dtype), mix), "b h w -> b 1 h w")
            cover = cover.masked_fill(cover < 0.8, 0.0)
            return torch.lerp(x, rearrange(colour, "c -> c 1 1"), cover)
        drops = water(liquid.masked_fill(liquid < threshold, 0.0))
        return torch.addcmul(x, rearrange(drops, "b h w -> b 1 h w"), rearrange(colour * mix, "c -> c 1 1"))


def water(liquid: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
    """How much light each pixel's water adds, at most 1 and exactly 1 somewhere in an image that has any."""
    levels = liquid.mul(255).floor_().clamp_(0, 255)
    depth = distance(canny(levels, 50, 150), FAR)
    depth = emboss(equalised(box(depth).div_(9).add_(1e-4).floor_(), FAR))  # 1e-4: nine equal depths are that depth
    thickness = levels * box(depth).div_(9).round_()
    return thickness / thickness.amax((1, 2), keepdim=True).clamp_min(1.0)
