"""How wide bounds f +- c sigma must be to hold a share of the targets: one curve over all c, whatever c was chosen.

For bounds of noise-free functions, whose quality is how narrow they are at the coverage that they reach.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.predictive import LOG_TWO_PI


class WidthCurve(NamedTuple):
    """Points of the curve, one a target: the k-th smallest c that holds k of the n targets.

    coverage  (n,): k / n.
    width     (n,): mean 2 c sigma, in target units.
    """

    coverage: Float[Tensor, " point"]
    width: Float[Tensor, " point"]


def width_curve(
    mean: Float[Tensor, "*batch target"], std: Float[Tensor, "*batch target"], *, y: Float[Tensor, "*batch target"]
) -> WidthCurve:
    """Mean width against coverage, exactly: c runs through the sorted |y - mean| / std."""
    needed = _ratios(mean, std, y).sort().values
    coverage = torch.arange(1, len(needed) + 1, dtype=torch.float64, device=needed.device) / len(needed)
    return WidthCurve(coverage, 2 * needed * std.detach().double().mean())


def width_area(
    mean: Float[Tensor, "*batch target"], std: Float[Tensor, "*batch target"], *, y: Float[Tensor, "*batch target"]
) -> float:
    """Area under the curve as steps: the mean over coverages of the width needed = 2 mean(sigma) mean(|y - f| / sigma).

    In target units, at least 0, lower is better; a factor on sigma does not change it.
    """
    return float(width_curve(mean, std, y=y).width.mean())


def least_nlpd(
    mean: Float[Tensor, "*batch target"], std: Float[Tensor, "*batch target"], *, y: Float[Tensor, "*batch target"]
) -> float:
    """min over c of the mean Gaussian NLL with standard deviation c sigma, in nats: at c^2 = mean ((y - f) / sigma)^2.

    = (log 2 pi + 1) / 2 + log c + mean log sigma. It sees the targets that it is measured on: it ranks shapes of
    uncertainty, and is no score of bounds that were chosen beforehand.
    """
    c = _ratios(mean, std, y).square().mean().sqrt()
    return float(0.5 * (LOG_TWO_PI + 1) + c.log() + std.detach().double().log().mean())


def _ratios(mean: Tensor, std: Tensor, y: Tensor) -> Float[Tensor, " value"]:
    if not mean.shape == std.shape == y.shape:
        raise ValueError(f"mean, std and y: want one shape, got {[tuple(t.shape) for t in (mean, std, y)]}")
    if not bool((std > 0).all()):
        raise ValueError(f"std: wants numbers above 0, the smallest is {float(std.min()):.3g}")
    return ((y.double() - mean.double()).abs() / std.double()).detach().flatten()
