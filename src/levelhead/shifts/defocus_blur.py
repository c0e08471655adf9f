"""Defocus: every point of light becomes a disk with a soft rim."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group

FEW_TAPS = (
    5  # up to this side, adding shifted images beats a Fourier transform (measured on one core, 32 to 224 pixels)
)


@dataclass(frozen=True)
class DefocusBlur(Corruption[tuple[float, float]]):
    """Convolution with a disk of radius r pixels, its rim smoothed by a Gaussian of standard deviation s.

    Constants are (r, s). The disk is 1[i^2 + j^2 <= r^2] / sum over a grid of half-width 8 (or r, if larger), smoothed
    with 3 x 3 (5 x 5) Gaussian taps; borders of disk and image are mirrored without repeating the edge pixel, as in
    OpenCV. Images (batch, channel, height, width) in [0, 1], with sides above the kernel's half-width (2 pixels with
    the small constants, 10 with the large). Hendrycks and Dietterich, arXiv 1903.12261.
    Deviation: taps below 1e-8, which float32 cannot add, are left out. As in the original, the two largest disks reach
    the border of their grid, whose mirror makes them sum to 1.013 and 1.011: those two brighten a little.
    """

    group: ClassVar[Group] = "blur"

    small: tuple[tuple[float, float], ...] = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
    large: tuple[tuple[float, float], ...] = ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5))

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: tuple[float, float], generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The blurred images; draws nothing."""
        return _blurred(x, disk(*level).to(x.device, x.dtype))


@functools.lru_cache
def disk(radius: float, smoothing: float) -> Float[Tensor, "tap tap"]:
    """The kernel in float64, cut to the taps of at least 1e-8; its side is odd."""
    half, reach = (8, 1) if radius <= 8 else (int(radius), 2)
    offset = torch.arange(-half, half + 1, dtype=torch.float64)
    full = (offset[:, None].square() + offset.square() <= radius**2).double()
    gauss = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / smoothing).square())
    gauss = gauss / gauss.sum()
    padded = F.pad(rearrange(full / full.sum(), "h w -> 1 1 h w"), (reach,) * 4, mode="reflect")
    kernel = rearrange(F.conv2d(padded, rearrange(torch.outer(gauss, gauss), "h w -> 1 1 h w")), "1 1 h w -> h w")
    kept = int(offset.abs()[(kernel >= 1e-8).any(0)].max())  # the disk is symmetric: one axis tells for both
    return kernel[half - kept : half + kept + 1, half - kept : half + kept + 1].contiguous()


def _blurred(x: Tensor, kernel: Float[Tensor, "tap tap"]) -> Tensor:
    taps = len(kernel)
    height, width = x.shape[-2:]
    padded = F.pad(x, (taps // 2,) * 4, mode="reflect")
    if taps <= FEW_TAPS:
        out = torch.zeros_like(x)
        for i, row in enumerate(kernel.tolist()):
            for j, weight in enumerate(row):
                out.add_(padded[..., i : i + height, j : j + width], alpha=weight)
        return out
    size = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel, s=size)  # symmetric: convolution is correlation
    return torch.fft.irfft2(spectrum, s=size)[..., taps - 1 :, taps - 1 :]
