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
        red, green, blue = pixels.unbind(1)
        # fixed-point numbers of 16 bits; all sums stay below 2^24, where float32 is exact
        luma = (red * 19595 + green * 38470 + blue * 7471 + 32768).mul_(2**-16).floor_()
        cb = (blue * 32768 - red * 11059 - green * 21709 + (128 * 65536 + 32767)).mul_(2**-16).floor_()
        cr = (red * 32768 - green * 27439 - blue * 5329 + (128 * 65536 + 32767)).mul_(2**-16).floor_()
        luma = coded(padded(luma, 8, 8), steps(LUMA, level))[..., :height, :width]
        small = coded(padded(halved(torch.stack([cb, cr])), 8, 8), steps(CHROMA, level))
        large = doubled(small[..., : -(-height // 2), : -(-width // 2)])[..., :height, :width]
        cb, cr = large.sub_(128)
        green = (cb * -22554 - cr * 46802 + 32768).mul_(2**-16).floor_()
        rgb = (cr.mul_(91881).add_(32768), green.mul_(65536), cb.mul_(116130).add_(32768))
        return torch.stack([luma + part.mul_(2**-16).floor_() for part in rgb], dim=1).div_(255)


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
    """Means of 2 x 2 levels, rounded by 1/4 and 1/2 in turns along a row."""
    plane = padded(plane, 2, 16)  # columns are filled before, rows after: the blocks at either edge differ
    four = plane[..., ::2, ::2] + plane[..., ::2, 1::2] + plane[..., 1::2, ::2] + plane[..., 1::2, 1::2]
    bias = torch.arange(four.shape[-1], device=plane.device) % 2 + 1
    return four.add_(bias).mul_(0.25).floor_()


def doubled(plane: Float[Tensor, "*batch height width"]) -> Tensor:
    """Twice as large by a triangle filter: 3/4 of the near row and column, 1/4 of the next."""
    above = torch.cat([plane[..., :1, :], plane[..., :-1, :]], -2)
    below = torch.cat([plane[..., 1:, :], plane[..., -1:, :]], -2)
    tall = rearrange([plane * 3 + above, plane * 3 + below], "two ... h w -> ... (h two) w")
    left = torch.cat([tall[..., :1], tall[..., :-1]], -1)
    right = torch.cat([tall[..., 1:], tall[..., -1:]], -1)
    wide = rearrange([tall * 3 + left + 8, tall * 3 + right + 7], "two ... h w -> ... h (w two)")
    return wide.mul_(1 / 16).floor_()
