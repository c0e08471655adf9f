"""Elastic transform: a slight random affine map, then a smooth random displacement of every pixel."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import SMALL_SIDE, Corruption, Group, uniforms
from levelhead.shifts._filters import gaussian


@dataclass(frozen=True)
class ElasticTransform(Corruption[tuple[float, float, float]]):
    """Three points move by U(-c, c) pixels, the image with them; then pixels move by a G_s(U(-1, 1)) in x and y.

    Constants are (a, s, c) as fractions of the image's side; the large ones count 244 pixels for 224, as the original
    does. The points are the centre plus (q, q), (q, -q) and (-q, -q) at q = side // 3. Bilinear both times; the affine
    map mirrors at the border without repeating the edge pixel, the displacement repeats it; the field is smoothed by a
    Gaussian cut at 3 s. Images (batch, channel, height, width) in [0, 1]. Hendrycks and Dietterich, arXiv 1903.12261.
    Deviations: the affine map interpolates at exact places, OpenCV's at multiples of 1/32 pixel. Where the image is not
    square, the points lie about its true centre and `side` is the shorter one.
    """

    group: ClassVar[Group] = "digital"

    small: tuple[tuple[float, float, float], ...] = (
        (0.0, 0.0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    )
    large: tuple[tuple[float, float, float], ...] = (
        (2.0, 0.7, 0.1),
        (2.0, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    )

    def distort(
        self,
        x: Float[Tensor, "batch channel height width"],
        level: tuple[float, float, float],
        generator: torch.Generator,
    ) -> Float[Tensor, "batch channel height width"]:
        """Affine map, then displacement."""
        height, width = x.shape[-2:]
        side = min(height, width) * (1.0 if min(height, width) <= SMALL_SIDE else 244 / 224)
        strength, sigma, corner = (side * constant for constant in level)
        drawn = uniforms(x, 6 + 2 * height * width, generator).mul_(2).sub_(1)
        turned = sampled(x, affine(drawn[:, :6] * corner, height, width), padding="mirror")
        if strength == 0:
            return turned
        field = rearrange(drawn[:, 6:], "b (two h w) -> b two h w", two=2, h=height)
        field = gaussian(field, sigma, border="reflect", cut=3.0) * strength
        return sampled(turned, pixels(height, width, like=x) + rearrange(field, "b two h w -> b h w two"))


def pixels(height: int, width: int, *, like: Tensor) -> Float[Tensor, "{height} {width} 2"]:
    """The places (x, y) of all pixels."""
    down = torch.arange(height, device=like.device, dtype=like.dtype)
    right = torch.arange(width, device=like.device, dtype=like.dtype)
    return torch.stack(torch.meshgrid(right, down, indexing="xy"), dim=-1)


def affine(moves: Float[Tensor, "batch 6"], height: int, width: int) -> Float[Tensor, "batch {height} {width} 2"]:
    """Where each pixel comes from when the three points move by (x, y) pixels each and take the image along."""
    moved = rearrange(moves, "b (point xy) -> b point xy", xy=2).double()
    third = min(height, width) // 3
    before = moved.new_tensor([[third, third], [third, -third], [-third, -third]])
    before = before + moved.new_tensor([width // 2, height // 2])
    after = F.pad(before + moved, (0, 1), value=1.0)
    # the map back, from places after to places before: after @ back = before
    back = torch.linalg.solve(after, before.expand(len(moves), 3, 2))
    line = F.pad(pixels(height, width, like=moves), (0, 1), value=1.0)
    return rearrange(rearrange(line, "h w k -> (h w) k") @ back.to(moves.dtype), "b (h w) xy -> b h w xy", h=height)


def sampled(
    x: Float[Tensor, "batch channel height width"],
    places: Float[Tensor, "batch height width 2"],
    *,
    padding: str = "repeat",
) -> Float[Tensor, "batch channel height width"]:
    """Bilinear values at places (x, y) in pixels; beyond the border mirrored, with the edge pixel repeated or not."""
    height, width = x.shape[-2:]
    ends = places.new_tensor([width, height])
    if padding == "mirror":
        return F.grid_sample(x, places * (2 / (ends - 1)) - 1, padding_mode="reflection", align_corners=True)
    return F.grid_sample(x, (places * 2 + 1) / ends - 1, padding_mode="reflection", align_corners=False)
