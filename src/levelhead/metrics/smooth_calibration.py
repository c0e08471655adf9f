"""Calibration error without bins: residuals smoothed by a Gaussian kernel whose width is the answer itself."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from levelhead.metrics.rows import top_label
from levelhead.types import Scalar

GRID = 4096  # cells of [0, 1]; residuals are deposited linearly, so the error falls with the square of the cell
BISECTIONS = 40


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
    spectrum = _spectrum(confidence.double(), outcome.double())
    if width is not None:
        if width < 0:
            raise ValueError(f"width: wants a standard deviation of at least 0, got {width}")
        return _smoothed(spectrum, spectrum.new_tensor(width, dtype=torch.float64))
    low = torch.zeros((), dtype=torch.float64, device=spectrum.device)
    high = torch.ones_like(low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        above = _smoothed(spectrum, middle) > middle
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


def _spectrum(confidence: Float[Tensor, " row"], outcome: Float[Tensor, " row"]) -> Tensor:
    """Fourier transform of the mean residual mass on a grid over [0, 1], continued evenly to period 2."""
    place = confidence * GRID
    cell = place.floor().clamp(0, GRID - 1)
    right = place - cell
    residual = (outcome - confidence) / len(confidence)
    mass = torch.zeros(GRID + 1, dtype=torch.float64, device=confidence.device)
    mass = mass.index_add(0, cell.long(), residual * (1 - right)).index_add(0, cell.long() + 1, residual * right)
    # the mirror images of the two ends fall on themselves: reflection doubles them
    return torch.fft.rfft(torch.cat([2 * mass[:1], mass[1:-1], 2 * mass[-1:], mass[1:-1].flip(0)]))


def _smoothed(spectrum: Tensor, width: Float[Tensor, ""]) -> Scalar:
    """Integral of the absolute smoothed residual over [0, 1] by the trapezoid rule."""
    cycles = torch.arange(len(spectrum), dtype=torch.float64, device=spectrum.device) / 2  # per unit of confidence
    smoothed = torch.fft.irfft(spectrum * torch.exp(-2 * (math.pi * width * cycles).square()), n=2 * GRID)
    inside = smoothed[: GRID + 1].abs()
    return inside.sum() - (inside[0] + inside[-1]) / 2
