"""Proper scores of quantiles and intervals, in target units, as means over rows and targets: lower is better."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.types import Scalar


def pinball(quantile: Float[Tensor, "*batch target"], *, y: Float[Tensor, "*batch target"], level: float) -> Scalar:
    """Quantile score (level - 1[y < q]) (y - q), minimised by the quantile of that level; half of |y - q| at 1/2."""
    _check_level("level", level)
    above = y.double() - quantile.double()
    return torch.maximum(level * above, (level - 1) * above).mean()


def interval_score(
    lower: Float[Tensor, "*batch target"],
    upper: Float[Tensor, "*batch target"],
    *,
    y: Float[Tensor, "*batch target"],
    level: float = 0.95,
) -> Scalar:
    """Winkler score of central intervals of mass `level` = 1 - a: width + (2 / a) (distance of y where outside).

    Equals (2 / a) times the sum of the two ends' pinball scores. Gneiting and Raftery 2007.
    """
    _check_level("level", level)
    lower, upper, y = lower.double(), upper.double(), y.double()
    if bool((lower > upper).any()):
        raise ValueError("lower: wants bounds at most as large as those of upper; some intervals are inside out")
    outside = (lower - y).clamp_min(0) + (y - upper).clamp_min(0)
    return (upper - lower + 2 / (1 - level) * outside).mean()


def weighted_interval_score(
    median: Float[Tensor, "*batch target"],
    lower: Sequence[Float[Tensor, "*batch target"]],
    upper: Sequence[Float[Tensor, "*batch target"]],
    *,
    y: Float[Tensor, "*batch target"],
    levels: Sequence[float],
) -> Scalar:
    """WIS: (|y - median| / 2 + sum_k (a_k / 2) S_k) / (K + 1/2), S_k the interval score of mass levels[k] = 1 - a_k.

    Twice the mean pinball score of its 2 K + 1 quantiles: the CRPS, for many evenly spaced ones. Bracher, Ray, Gneiting
    and Reich, arXiv 2005.12881.
    """
    if not len(lower) == len(upper) == len(levels):
        raise ValueError(
            f"levels: wants a lower and an upper bound each, got {len(levels)}, {len(lower)}, {len(upper)}"
        )
    total = (y.double() - median.double()).abs().mean() / 2
    for low, high, level in zip(lower, upper, levels, strict=True):
        total = total + (1 - level) / 2 * interval_score(low, high, y=y, level=level)
    return total / (len(levels) + 0.5)


def normalised_width(
    lower: Float[Tensor, "*batch target"], upper: Float[Tensor, "*batch target"], *, y: Float[Tensor, "*batch target"]
) -> Scalar:
    """NMPIW: mean width divided by the range of the target (each by its own), so 1 says nothing; at least 0."""
    y = y.double().reshape(-1, y.shape[-1])
    extent = y.amax(0) - y.amin(0)
    if not bool((extent > 0).all()):
        raise ValueError("y: wants targets that differ; their range is the unit")
    return ((upper.double() - lower.double()) / extent).mean()


def _check_level(name: str, level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"{name}: wants a probability in (0, 1), got {level}")
