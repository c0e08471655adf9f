"""Rotation about the centre of the image; a severity is an angle in degrees."""

import functools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.shifts._base import check_range, check_severity
from levelhead.types import Reference

SHARE = 2**24  # numbers that the taps of one chunk of images may take


@dataclass(frozen=True)
class Rotation:
    """Turned counter-clockwise by `severity` degrees, by cubic splines, zeros outside; the frame keeps its size.

    Images (batch, channel, height, width) in [0, 1], of any shape and number of channels. The rotated MNIST of Ovadia
    et al. (arXiv 1906.02530) in steps of 15 degrees to 180, as SciPy's `ndimage.rotate` with its default order 3 makes
    it: the spline goes through every pixel, mirrored at the border, and a point outside the image is zero. Deviations:
    they expand the canvas and cut its centre out, which moves the image by half a pixel where the canvas is odd; here
    the centre stays. Overshoot is clipped to [0, 1]. Draws nothing.
    """

    kind: ClassVar[Literal["image", "tabular"]] = "image"
    group: ClassVar[str] = "geometric"
    severities: ClassVar[tuple[int, ...]] = tuple(range(15, 181, 15))
    reference: ClassVar[Reference] = Reference(
        "Ovadia et al.",
        2019,
        arxiv="1906.02530",
        title="Can You Trust Your Model's Uncertainty? Evaluating Predictive Uncertainty Under Dataset Shift",
    )

    def __call__(
        self, x: Float[Tensor, "batch channel height width"], severity: int, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The turned images; 0 returns them as they are. Raises ValueError for another angle."""
        check_severity(self, severity)
        check_range(self, x)
        if severity == 0:
            return x
        height, width = x.shape[-2:]
        down, across = (spline_coefficients(size).to(x.device, x.dtype) for size in (height, width))
        spline = einsum(down, x, across, "i h, b c h w, j w -> b c i j")
        places, weights = (t.to(x.device) for t in taps(height, width, severity))
        flat = rearrange(spline, "b c h w -> (b c) (h w)")
        rows = max(1, SHARE // places.numel())
        turned = [(part[:, places] * weights.to(x.dtype)).sum(-2) for part in flat.split(rows)]
        return rearrange(torch.cat(turned), "(b c) (h w) -> b c h w", b=len(x), h=height).clamp(0, 1)


@functools.lru_cache
def spline_coefficients(size: int) -> Float[Tensor, "size size"]:
    """The matrix from `size` values to the coefficients of the cubic B-spline through them, mirrored at both ends.

    The inverse of the tridiagonal matrix with 4/6 on the diagonal and 1/6 beside it; float64.
    """
    values = torch.eye(size, dtype=torch.float64) * 4 / 6
    for place in range(size):
        for beside in (place - 1, place + 1):
            values[place, mirrored(torch.tensor(beside), size)] += 1 / 6
    return torch.linalg.inv(values)


def mirrored(place: Int[Tensor, "..."], size: int) -> Int[Tensor, "..."]:
    """Places outside 0 ... size - 1 turned back at the end pixels, which are not repeated."""
    if size == 1:
        return torch.zeros_like(place)
    return (size - 1) - ((place % (2 * size - 2)) - (size - 1)).abs()


@functools.lru_cache
def taps(height: int, width: int, degrees: int) -> tuple[Int[Tensor, "tap pixel"], Float[Tensor, "tap pixel"]]:
    """For every pixel of the turned image the 16 coefficients that it is made of, and their weights; float64."""
    y = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rows = rearrange(sin * x + cos * y + (height - 1) / 2, "h w -> (h w)")
    columns = rearrange(cos * x - sin * y + (width - 1) / 2, "h w -> (h w)")
    found = [axis_taps(at, size) for at, size in ((rows, height), (columns, width))]
    (down, down_weights), (across, across_weights) = found
    places = rearrange(down, "a p -> a 1 p") * width + across
    weights = rearrange(down_weights, "a p -> a 1 p") * across_weights
    return rearrange(places, "a b p -> (a b) p"), rearrange(weights, "a b p -> (a b) p")


def axis_taps(at: Float[Tensor, " pixel"], size: int) -> tuple[Int[Tensor, "4 pixel"], Float[Tensor, "4 pixel"]]:
    """Four neighbours along one axis and their cubic B-spline weights; weights of zero outside the image."""
    nearby = at.round()
    at = torch.where((at - nearby).abs() < 1e-9, nearby, at)  # a right angle's rounding must not blank the border
    first = at.floor()
    t = at - first
    weights = torch.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * (1 - t) ** 3 - 6 * (1 - t) ** 2 + 4, t**3]) / 6
    inside = (at >= 0) & (at <= size - 1)
    places = torch.stack([first + offset for offset in (-1, 0, 1, 2)]).long()
    return mirrored(places, size), weights * inside
