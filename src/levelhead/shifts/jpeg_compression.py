"""JPEG: the image is compressed with loss and shown again."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group, check_colours
from levelhead.shifts._filters import apart

# The quantisation steps that the standard suggests (ITU-T T.81, annex K), for brightness and for colour, row by row.
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# JFIF's colours in units of 2^-16, and the middle of the colour planes less what makes a half go down.
TO_YCC = ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
TO_RGB = ((0, 91881), (-22554, -46802), (116130, 0))
CENTRE = 128 * 65536 + 32767


@dataclass(frozen=True)
class JpegCompression(Corruption[int]):
    """What is left after JPEG at a quality c of 1 to 100, with the steps and roundings of libjpeg as Pillow calls it.

    To YCbCr; colour averaged over 2 x 2 pixels; cosine transform of 8 x 8 blocks, divided by the quality's steps and
    rounded; and back, colour enlarged with a triangle filter. Every step is computed on whole numbers, held as float32.
    Images (batch, 1 or 3 channels, height, width) in [0, 1]; values between the 256 levels are rounded first. Grey
    images are compressed as such. Hendrycks and Dietterich, arXiv 1903.12261.
    Deviation: the second pass of each cosine transform is rounded to 24 bits, so that a pixel in some ten thousand
    differs from Pillow's by one level; Pillow's own pixels depend on the version of its library.
    """

    group: ClassVar[Group] = "digital"

    small: tuple[int, ...] = (80, 65, 58, 50, 40)
    large: tuple[int, ...] = (25, 18, 15, 10, 7)

    def __post_init__(self) -> None:
        super().__post_init__()
        for quality in (*self.small, *self.large):
            if not 1 <= quality <= 100:
                raise ValueError(f"JpegCompression: qualities go from 1 to 100, got {quality}")

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: int, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """Compressed and decompressed; draws nothing."""
        check_colours(self, x)
        height, width = x.shape[-2:]
        pixels = x.mul(255).round_()
        if x.shape[1] == 1:
            return coded(padded(pixels, 8, 8), steps(LUMA, level))[..., :height, :width] / 255
        planes = fixed_point(pixels, TO_YCC, (32768, CENTRE, CENTRE))
        luma, colours = planes[:, :1], planes[:, 1:]
        luma = coded(padded(luma, 8, 8), steps(LUMA, level))[..., :height, :width]
        colours = doubled(coded(halved(colours), steps(CHROMA, level)), height, width)
        return fixed_point(colours.sub_(128), TO_RGB, (32768,) * 3).add_(luma).div_(255)


def fixed_point(x: Tensor, matrix: tuple[tuple[int, ...], ...], offset: tuple[int, ...]) -> Tensor:
    """Channels times a matrix in units of 2^-16, plus an offset, rounded down: sums below 2^24 are exact in float32."""
    height = x.shape[2]
    mixed = x.new_tensor(matrix) @ rearrange(x, "b c h w -> b c (h w)")
    mixed = mixed.add_(rearrange(x.new_tensor(offset), "c -> c 1")).mul_(2**-16).floor_()
    return rearrange(mixed, "b c (h w) -> b c h w", h=height)


@functools.lru_cache
def steps(table: tuple[tuple[int, ...], ...], quality: int) -> Float[Tensor, "8 8"]:
    """The table at a quality: as it is at 50, finer above, coarser below, in whole numbers from 1 to 255."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return torch.tensor(table).mul(scale).add(50).div(100, rounding_mode="floor").clamp(1, 255).float()


@functools.lru_cache
def cosines() -> Float[Tensor, "8 8"]:
    """libjpeg's cosine transform of 8 numbers times 2^13 sqrt(8), in whole numbers; its transpose is the way back."""

    def fixed(value: float) -> int:
        return round(value * 2**13)

    # the even half acts on (d0 + d7, d1 + d6, d2 + d5, d3 + d4), the odd half on (d0 - d7, ..., d3 - d4); entries are
    # the sums of rounded constants that libjpeg's shortest way of multiplying comes to
    one, c, s, t = fixed(1), fixed(0.541196100), fixed(0.765366865), fixed(1.847759065)
    e, a, b = fixed(1.175875602), fixed(0.899976223), fixed(2.562915447)
    g, h = fixed(1.961570560), fixed(0.390180644)
    p, q, r, o = fixed(1.501321110), fixed(3.072711026), fixed(2.053119869), fixed(0.298631336)
    even = torch.tensor([[one, one, one, one], [c + s, c, -c, -c - s], [one, -one, -one, one], [c, c - t, t - c, -c]])
    odd = torch.tensor(
        [
            [p - a - h + e, e, e - h, e - a],
            [e, q - b - g + e, e - b, e - g],
            [e - h, e - b, r - b - h + e, e],
            [e - a, e - g, e, o - a - g + e],
        ]
    )
    half = torch.stack([torch.cat([even, even.flip(1)], 1), torch.cat([odd, -odd.flip(1)], 1)], dim=1)
    return rearrange(half, "row parity place -> (row parity) place").float()


def coded(plane: Float[Tensor, "*batch height width"], step: Float[Tensor, "8 8"]) -> Tensor:
    """A plane of levels after transform, rounding to multiples of the steps, and the way back; sides in eights."""
    height, width = plane.shape[-2:]
    rows, columns = side(height), side(width)
    cos_rows, cos_columns = (blocks(cosines(), size).to(plane.device, plane.dtype) for size in (rows, columns))
    step = step.to(plane.device, plane.dtype).repeat(rows // 8, columns // 8)
    x = rearrange(plane, "... (m h) (n w) -> ... m n h w", h=rows, w=columns).sub(128)
    x = (x @ cos_columns.mT).add_(2**10).mul_(2**-11).floor_()
    x = (cos_rows @ x).add_(2**14).mul_(2**-15).floor_()  # 8 times the transform
    x = (x.abs().add_(4 * step) / (8 * step)).floor_().mul_(x.sign()).mul_(step)
    x = (cos_rows.mT @ x).add_(2**10).mul_(2**-11).floor_()
    x = (x @ cos_columns).add_(2**17).mul_(2**-18).floor_().add_(128).clamp_(0, 255)
    return rearrange(x, "... m n h w -> ... (m h) (n w)")


def side(size: int) -> int:
    """The side of the tiles that are multiplied at once: several blocks where they fit."""
    return next(tile for tile in (32, 16, 8) if size % tile == 0)


@functools.lru_cache
def blocks(matrix: Float[Tensor, "8 8"], size: int) -> Float[Tensor, "{size} {size}"]:
    """The matrix along the diagonal."""
    return torch.block_diag(*[matrix] * (size // 8))


def padded(plane: Float[Tensor, "*batch height width"], tall: int, wide: int) -> Tensor:
    """Height and width filled up to multiples by repeating the last row and column."""
    height, width = plane.shape[-2:]
    fill = (0, -width % wide, 0, -height % tall)
    return F.pad(rearrange(plane, "... h w -> 1 (...) h w"), fill, mode="replicate").reshape(
        *plane.shape[:-2], height + fill[3], width + fill[1]
    )


def halved(plane: Float[Tensor, "*batch height width"]) -> Tensor:
    """Means of 2 x 2 levels, rounded by 1/4 and 1/2 in turns along a row; sides filled up to multiples of 8."""
    height, width = plane.shape[-2:]
    # columns are filled up before taking means, rows after: where an image ends within a block, it shows
    four = apart(plane, pairs(height, last=-(-height // 2) - 1), pairs(width, last=width))
    bias = torch.arange(four.shape[-1], device=plane.device) % 2 + 1
    return four.add_(bias).mul_(0.25).floor_()


@functools.lru_cache
def pairs(size: int, *, last: int) -> Float[Tensor, "half {size}"]:
    """Which two of a line of levels each of half as many sums up; from `last` on all are alike."""
    place = torch.arange(-(-size // 16) * 8).clamp_max(last)
    ends = (F.one_hot((2 * place + odd).clamp_max(size - 1), size) for odd in (0, 1))
    return torch.stack(list(ends)).sum(0).float()


def doubled(plane: Float[Tensor, "*batch half_height half_width"], height: int, width: int) -> Tensor:
    """Enlarged to a size by a triangle filter: 3/4 of the near row and column, 1/4 of the next."""
    wide = apart(plane, triangle(plane.shape[-2], height), triangle(plane.shape[-1], width))
    bias = 8 - torch.arange(width, device=plane.device) % 2
    return wide.add_(bias).mul_(1 / 16).floor_()


@functools.lru_cache
def triangle(size: int, larger: int) -> Float[Tensor, "{larger} {size}"]:
    """Three of the near level and one of the next, within what stands for a line of `larger` levels."""
    place = torch.arange(larger)
    near = place // 2
    beside = (near + place % 2 * 2 - 1).clamp(0, -(-larger // 2) - 1)
    return (3 * F.one_hot(near, size) + F.one_hot(beside, size)).float()
