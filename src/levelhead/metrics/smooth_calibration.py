"""Calibration error without bins: residuals smoothed by a Gaussian kernel whose width is the answer itself."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from levelhead.metrics.rows import top_label
from levelhead.types import Scalar

GRID = 4096  # cells of [0, 1]; residuals are deposited linearly, so the error falls with the square of the cell
BISECTIONS = 40
NOBODY = 1e-6  # rows a unit of confidence, as a share of all: below it a curve is rounding
COARSE_GRID, COARSE_BISECTIONS = 512, 13  # widths to 1e-4


def smooth_ece(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, void: int | None = None
) -> Scalar:
    """Smooth calibration error of the top label, in [0, 1]; see `smooth_error`."""
    confidence, correct = top_label(log_probs, y, void=void)
    return smooth_error(confidence, correct)


def smooth_error(
    confidence: Float[Tensor, " row"],
    outcome: Bool[Tensor, " row"] | Float[Tensor, " row"],
    *,
    width: float | None = None,
) -> Scalar:
    """smECE_s = integral over t in [0, 1] of |mean_i K_s(t, c_i) (a_i - c_i)|, at the s where smECE_s = s.

    K_s is the Gaussian of standard deviation s reflected at 0 and 1. smECE_s falls with s, so the width is unique
    and found by bisection; `width` fixes it instead. Within a constant factor of the distance to the nearest perfectly
    calibrated predictor, and continuous in the confidences. confidence, outcome (row,) in [0, 1].
    Blasiok and Nakkiran, "Smooth ECE", arXiv 2309.12236.
    """
    confidence = confidence.double()
    spectrum = _spectrum(confidence, outcome.double() - confidence, GRID)
    if width is not None:
        if width < 0:
            raise ValueError(f"width: wants a standard deviation of at least 0, got {width}")
        return _smoothed(spectrum, spectrum.new_tensor(width, dtype=torch.float64))
    return _fixed_point(spectrum, BISECTIONS)


class SmoothReliability(NamedTuple):
    """Share of right rows around each confidence (NaN where no row is near), and how many rows there are around it."""

    confidence: Float[Tensor, " point"]
    accuracy: Float[Tensor, " point"]
    density: Float[Tensor, " point"]


def smooth_reliability(
    confidence: Float[Tensor, " row"],
    outcome: Bool[Tensor, " row"] | Float[Tensor, " row"],
    *,
    width: float | None = None,
) -> SmoothReliability:
    """Reliability curve sum_i K_s(t, c_i) a_i / sum_i K_s(t, c_i) on 4,097 points of [0, 1], without bins.

    `width` s is the smooth error by default, so that the gap between curve and diagonal, weighted by the density
    (which integrates to 1), is that error up to its own smoothing. Draw the density too: a gap where nobody is does not
    count. Errors of the curve: call it on rows drawn with replacement.
    """
    confidence, outcome = confidence.double(), outcome.double()
    s = smooth_error(confidence, outcome) if width is None else confidence.new_tensor(width)
    mass = _spectrum(confidence, torch.stack([torch.ones_like(outcome), outcome]), GRID)
    around, right = _curve(mass, s.expand(2)).clamp_min(0.0)
    around, right = around * GRID, right * GRID  # the mass of a cell, over its width
    points = torch.linspace(0, 1, GRID + 1, dtype=torch.float64, device=confidence.device)
    return SmoothReliability(points, torch.where(around > NOBODY, right / around, torch.nan), around)


def mean_smooth_error(confidence: Float[Tensor, " row"], residual: Float[Tensor, "draw row"]) -> Scalar:
    """Mean over draws of smECE with residuals a - c, for noise floors: a coarser grid, good to a few per cent."""
    return _fixed_point(_spectrum(confidence.double(), residual.double(), COARSE_GRID), COARSE_BISECTIONS).mean()


def _fixed_point(spectrum: Tensor, bisections: int) -> Float[Tensor, "*draw"]:
    """The width that equals its own error, of each spectrum (*draw, frequency)."""
    low = torch.zeros(spectrum.shape[:-1], dtype=torch.float64, device=spectrum.device)
    high = torch.ones_like(low)
    for _ in range(bisections):
        middle = (low + high) / 2
        above = _smoothed(spectrum, middle) > middle
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


def _spectrum(confidence: Float[Tensor, " row"], residual: Float[Tensor, "*draw row"], grid: int) -> Tensor:
    """Fourier transform of the mean residual mass on a grid over [0, 1], continued evenly to period 2."""
    place = confidence * grid
    cell = place.floor().clamp(0, grid - 1)
    right = place - cell
    residual = residual / len(confidence)
    mass = residual.new_zeros(*residual.shape[:-1], grid + 1)
    mass = mass.index_add(-1, cell.long(), residual * (1 - right)).index_add(-1, cell.long() + 1, residual * right)
    # the mirror images of the two ends fall on themselves: reflection doubles them
    inside = mass[..., 1:-1]
    return torch.fft.rfft(torch.cat([2 * mass[..., :1], inside, 2 * mass[..., -1:], inside.flip(-1)], dim=-1))


def _smoothed(spectrum: Tensor, width: Float[Tensor, "*draw"]) -> Float[Tensor, "*draw"]:
    """Integral of the absolute smoothed residual over [0, 1] by the trapezoid rule."""
    inside = _curve(spectrum, width).abs()
    return inside.sum(-1) - (inside[..., 0] + inside[..., -1]) / 2


def _curve(spectrum: Tensor, width: Float[Tensor, "*draw"]) -> Float[Tensor, "*draw point"]:
    """What the reflected kernel makes of the mass on the grid, at its points."""
    last = spectrum.shape[-1] - 1  # the grid's cells
    cycles = torch.arange(last + 1, dtype=torch.float64, device=spectrum.device) / 2  # per unit of confidence
    damped = spectrum * torch.exp(-2 * (math.pi * width[..., None] * cycles).square())
    return torch.fft.irfft(damped, n=2 * last)[..., : last + 1]
