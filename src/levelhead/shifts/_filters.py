"""Filters that several corruptions share: Gaussian smoothing, blur along a line, zoom into the centre.

Smoothing and zoom act on rows and columns alone, so they are two matrix products with the border rule in the matrix:
at 32 pixels faster than adding shifted images, and one call whatever the border. On CUDA, products of float32 are exact
enough as torch has them by default; with TF32 switched on, levels would shift.
"""

import functools
import itertools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

Border = Literal["nearest", "reflect"]
FEW_PIXELS = 64 * 64  # up to here a kernel an image beats sums of moved images (measured, 28 to 224 pixels)
UNSEEN = 1e-7  # a tap below this share moves no 8-bit level


def gaussian(
    x: Float[Tensor, "*batch height width"], sigma: float, *, border: Border = "nearest", cut: float = 4.0
) -> Float[Tensor, "*batch height width"]:
    """Smoothed with standard deviation `sigma` pixels, taps cut at `cut` sigma; as scipy.ndimage.gaussian_filter."""
    if int(cut * sigma + 0.5) == 0:
        return x
    return apart(x, *(gaussian_matrix(size, sigma, border, cut) for size in x.shape[-2:]))


def zoomed(x: Float[Tensor, "*batch height width"], factor: float) -> Float[Tensor, "*batch height width"]:
    """The middle ceil(size / factor) pixels, enlarged by `factor` with linear interpolation, cut to the old size."""
    return apart(x, *(zoom_matrix(size, *zoom_sizes(size, factor)) for size in x.shape[-2:]))


def apart(
    x: Float[Tensor, "*batch height width"], rows: Float[Tensor, "tall height"], columns: Float[Tensor, "wide width"]
) -> Float[Tensor, "*batch tall wide"]:
    """A linear map along the columns, and one along the rows."""
    return rows.to(x.device, x.dtype) @ (x @ columns.to(x.device, x.dtype).mT)


@functools.lru_cache(maxsize=256)
def gaussian_matrix(size: int, sigma: float, border: Border, cut: float) -> Float[Tensor, "size size"]:
    """The weight of each pixel of a line in each smoothed one, in float64; "reflect" repeats the edge pixel."""
    reach = int(cut * sigma + 0.5)
    offset = torch.arange(-reach, reach + 1)
    taps = torch.exp(-0.5 * (offset.double() / sigma).square())
    place = torch.arange(size)[:, None] + offset
    if border == "nearest":
        place = place.clamp(0, size - 1)
    else:
        place = place.remainder(2 * size)
        place = torch.minimum(place, 2 * size - 1 - place)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, place, (taps / taps.sum()).expand(size, -1))


def zoom_sizes(size: int, factor: float) -> tuple[int, int]:
    """The pixels that a zoom keeps, and to how many it enlarges them."""
    kept = math.ceil(size / factor)
    return kept, round(kept * factor)


@functools.lru_cache(maxsize=256)
def zoom_matrix(size: int, kept: int, enlarged: int) -> Float[Tensor, "size size"]:
    """The weight of each pixel of a line in each enlarged one, in float64: first falls on first, last on last."""
    place = torch.arange(size, dtype=torch.float64) + (enlarged - size) // 2
    place = place * ((kept - 1) / max(enlarged - 1, 1))
    below = place.floor().long().clamp_max(kept - 1)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    top = (size - kept) // 2
    matrix.scatter_add_(1, (top + below)[:, None], (1 - (place - below))[:, None])
    matrix.scatter_add_(1, (top + (below + 1).clamp_max(kept - 1))[:, None], (place - below)[:, None])
    return matrix


def motion(
    x: Float[Tensor, "batch channel height width"], angle: Float[Tensor, " batch"], *, radius: int, sigma: float
) -> Float[Tensor, "batch channel height width"]:
    """Blurred to one side along a line at `angle` degrees of each image: sum_i k_i x(p + o_i), edge pixels repeated.

    k_i is proportional to exp(-i^2 / 2 sigma^2) for i = 0 ... 2 radius, o_i = (ceil(i cos - 1/2), ceil(i sin - 1/2)) to
    the right and down.
    """
    weights = motion_taps(radius, sigma)
    steps = motion_steps(angle.double().cpu(), len(weights))
    # not on CUDA, where a convolution may round its factors to 10 bits (TF32 is cuDNN's default)
    blur = _by_kernels if x.device.type == "cpu" and x.shape[-2] * x.shape[-1] <= FEW_PIXELS else _by_runs
    return blur(x, weights, steps)


def _by_kernels(x: Tensor, weights: Float[Tensor, " tap"], steps: Int[Tensor, "tap batch 2"]) -> Tensor:
    """A small kernel for each image, all applied by one grouped convolution."""
    low, high = steps.amin((0, 1)), steps.amax((0, 1))
    (wide, tall), batch = (high - low + 1).tolist(), len(x)
    place = (steps[..., 1] - low[1]) * wide + steps[..., 0] - low[0]
    kernels = torch.zeros(batch, tall * wide, dtype=torch.float64).scatter_add_(
        1, place.mT, weights.expand(batch, -1).contiguous()
    )
    kernels = rearrange(kernels, "b (h w) -> b 1 h w", h=tall).to(x.device, x.dtype)
    (left, up), (right, down) = (-low.clamp_max(0)).tolist(), high.clamp_min(0).tolist()
    padded = F.pad(x, (left, right, up, down), mode="replicate")
    padded = padded[..., max(0, int(low[1])) :, max(0, int(low[0])) :]
    height, width = x.shape[-2:]
    padded = padded[..., : height + tall - 1, : width + wide - 1]
    blurred = F.conv2d(rearrange(padded, "b c h w -> c b h w"), kernels, groups=batch)
    return rearrange(blurred, "c b h w -> b c h w").contiguous()


def _by_runs(x: Tensor, weights: Float[Tensor, " tap"], steps: Int[Tensor, "tap batch 2"]) -> Tensor:
    """Sums of moved images, for large ones. In order of direction, those that a tap moves alike lie side by side."""
    order = steps[-1, :, 1].argsort(stable=True)
    steps, reach = steps[:, order], int(steps.abs().max())
    height, width = x.shape[-2:]
    padded = F.pad(x[order.to(x.device)], (reach,) * 4, mode="replicate")
    out = torch.zeros_like(x)
    for weight, moves in zip(weights.tolist(), steps, strict=True):
        turns = ((moves[1:] != moves[:-1]).any(1).nonzero().flatten() + 1).tolist()
        for begin, end in itertools.pairwise((0, *turns, len(x))):
            left, top = (moves[begin] + reach).tolist()
            run = padded[begin:end, :, top : top + height, left : left + width]
            out[begin:end].add_(run, alpha=weight)
    return out[order.argsort().to(x.device)]


@functools.lru_cache
def motion_taps(radius: int, sigma: float) -> Float[Tensor, " tap"]:
    """The one-sided kernel in float64, which sums to 1 but for the taps too small to be seen."""
    full = torch.exp(-0.5 * (torch.arange(2 * radius + 1, dtype=torch.float64) / sigma).square())
    full = full / full.sum()
    return full[full >= UNSEEN]


def motion_steps(angle: Float[Tensor, " batch"], taps: int) -> Int[Tensor, "tap batch 2"]:
    """How far right and how far down each tap lies, in whole pixels."""
    radians = torch.deg2rad(angle)
    line = torch.stack([radians.cos(), radians.sin()], dim=-1)
    return (torch.arange(taps, dtype=torch.float64)[:, None, None] * line - 0.5).ceil().long()
