"""Too few pixels: shrunk by averaging and enlarged by repeating."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.shifts._base import Corruption, Group


@dataclass(frozen=True)
class Pixelate(Corruption[float]):
    """Resized by Pillow's BOX filter to int(c height) x int(c width) and back, in 8-bit steps.

    Images (batch, channel, height, width) in [0, 1]; values between the 256 levels are rounded first. To the bit what
    Pillow gives: a small pixel is the mean of the whole pixels whose centres it covers, columns before rows, each mean
    rounded to 8 bits. Hendrycks and Dietterich, arXiv 1903.12261. Deviation: none; images need not be square.
    """

    group: ClassVar[Group] = "digital"

    small: tuple[float, ...] = (0.95, 0.9, 0.85, 0.75, 0.65)
    large: tuple[float, ...] = (0.6, 0.5, 0.4, 0.3, 0.25)

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The coarse images; draws nothing."""
        height, width = x.shape[-2:]
        coarse = (max(1, int(height * level)), max(1, int(width * level)))
        rows = box(height, coarse[0]).to(x.device, x.dtype)
        columns = box(width, coarse[1]).to(x.device, x.dtype)
        shrunk = x.mul(255).round_() @ columns.mT
        shrunk = (rows @ shrunk.add_(0.5).floor_()).add_(0.5).floor_()
        # enlarged by products with one 1 a row: exact, and faster than picking from the last axis
        tall, wide = (
            F.one_hot(nearest(*sizes)).to(x.device, x.dtype) for sizes in zip(coarse, (height, width), strict=True)
        )
        return (tall @ (shrunk @ wide.mT)).div_(255)


@functools.lru_cache
def box(size: int, smaller: int) -> Float[Tensor, "smaller size"]:
    """Pillow's weights for shrinking `size` pixels: equal over the pixels with centres in each new one, in float64."""
    # Pillow decides twice, by a window of whole pixels and by a test of their centres; where a centre lies just on
    # the border (13 pixels to 6) rounding makes the two differ, so its steps are followed one by one
    scale = size / smaller
    centre = (torch.arange(smaller, dtype=torch.float64)[:, None] + 0.5) * scale
    pixel, support = torch.arange(size, dtype=torch.float64), 0.5 * scale
    window = (pixel >= (centre - support + 0.5).floor()) & (pixel < (centre + support + 0.5).floor())
    offset = (pixel - centre + 0.5) * (1 / scale)
    covered = (window & (offset > -0.5) & (offset <= 0.5)).double()
    return covered / covered.sum(-1, keepdim=True)


@functools.lru_cache
def nearest(size: int, larger: int) -> Int[Tensor, " larger"]:
    """The small pixel that each of the `larger` shows: the one that its centre lies in."""
    return ((torch.arange(larger, dtype=torch.float64) + 0.5) * (size / larger)).long()
