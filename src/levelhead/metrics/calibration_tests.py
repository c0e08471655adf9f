"""Could calibrated predictions look like this? Tests of confidences (row,) against outcomes, without a choice of bins.

A p value is the chance of a statistic at least as large under perfect calibration, by the limit of many rows.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from levelhead.types import Scalar

SERIES = 60  # terms: the last is below 1e-16 wherever the series are used
CLIP = 1e-7  # of probabilities, before a logit


class CalibrationTest(NamedTuple):
    """A statistic and its p value, both 0-d."""

    statistic: Scalar
    p_value: Scalar


def spiegelhalter(confidence: Float[Tensor, " row"], outcome: Bool[Tensor, " row"]) -> CalibrationTest:
    """Z = sum (a - c) (1 - 2c) / sqrt(sum (1 - 2c)^2 c (1 - c)), standard normal if calibrated; two-sided p value.

    Asks whether the Brier score is what the confidences promise: positive is overconfident. Where confidences are 0,
    1/2 or 1 throughout nothing is random: Z is then 0 if all certain ones came true, else infinite.
    Spiegelhalter 1986, "Probabilistic prediction in patient management and clinical trials".
    """
    c, a = _checked(confidence, outcome)
    slope = 1 - 2 * c
    excess, variance = ((a - c) * slope).sum(), (slope.square() * c * (1 - c)).sum()
    nothing = (variance == 0) & (excess == 0)
    z = torch.where(nothing, 0.0, excess / variance.sqrt())
    return CalibrationTest(z, torch.special.erfc(z.abs() / math.sqrt(2)))


def kolmogorov_smirnov(confidence: Float[Tensor, " row"], outcome: Bool[Tensor, " row"]) -> CalibrationTest:
    """Largest |C_k|, in [0, 1]; C_k = (1 / n) sum of a - c over the k least confident rows.

    The p value is that of max |Brownian motion|, whose standard deviation at the end is sqrt(sum c (1 - c)) / n. Ties
    are summed before they are looked at, so the order of rows does not matter. Arrieta-Ibarra et al. 2022, "Metrics
    of calibration for probabilistic predictions".
    """
    walk, scale = _cumulative(confidence, outcome)
    statistic = walk.abs().amax()
    return CalibrationTest(statistic, _tail_of_maximum(_standardised(statistic, scale)))


def kuiper(confidence: Float[Tensor, " row"], outcome: Bool[Tensor, " row"]) -> CalibrationTest:
    """Range max_k C_k - min_k C_k of the cumulative differences, C_0 = 0 included, in [0, 1]; see `kolmogorov_smirnov`.

    The largest |mean of a - c| times share of rows over all intervals of confidence.
    """
    walk, scale = _cumulative(confidence, outcome)
    statistic = walk.amax() - walk.amin()
    return CalibrationTest(statistic, _tail_of_range(_standardised(statistic, scale)))


class Refit(NamedTuple):
    """logit P(a = 1) = intercept + slope logit(c): 1 and 0 if calibrated; a slope below 1 is overconfident."""

    slope: Scalar
    intercept: Scalar


def logistic_refit(confidence: Float[Tensor, " row"], outcome: Bool[Tensor, " row"], *, steps: int = 50) -> Refit:
    """Calibration slope and intercept, by maximum likelihood (Newton, float64).

    Confidences are clipped to [1e-7, 1 - 1e-7] before the logit. NaN where the likelihood has no maximum: outcomes all
    alike, or separated by the confidence; also where all confidences are equal. Cox 1958, "Two further applications of
    a model for binary regression".
    """
    c, a = _checked(confidence, outcome)
    logit = torch.logit(c.clamp(CLIP, 1 - CLIP))
    nowhere = logit.new_full((), torch.nan)
    if logit.amax() == logit.amin() or _separated(logit, a):
        return Refit(nowhere, nowhere)
    design = torch.stack([logit, torch.ones_like(logit)], dim=-1)
    weights = design.new_tensor([1.0, 0.0])
    loss = _logistic_loss(design, a, weights)
    for _ in range(steps):
        p = torch.sigmoid(design @ weights)
        gradient = design.mT @ (p - a)
        hessian = (design * (p * (1 - p))[:, None]).mT @ design
        step = torch.linalg.solve(hessian, gradient)
        length = 1.0
        while (tried := _logistic_loss(design, a, weights - length * step)) > loss and length > 1e-9:
            length /= 2
        weights, loss = weights - length * step, torch.minimum(tried, loss)
        if step.abs().amax() < 1e-10:
            break
    return Refit(weights[0], weights[1])


def _logistic_loss(design: Tensor, a: Tensor, weights: Tensor) -> Scalar:
    score = design @ weights
    return (torch.nn.functional.softplus(score) - a * score).sum()


def _separated(logit: Tensor, a: Tensor) -> bool:
    """Whether some threshold tells right from wrong without a mistake (touching at one value included)."""
    right, wrong = logit[a == 1], logit[a == 0]
    if len(right) == 0 or len(wrong) == 0:
        return True
    return bool(right.amin() >= wrong.amax()) or bool(wrong.amin() >= right.amax())


def _checked(confidence: Tensor, outcome: Tensor) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"]]:
    if len(confidence) == 0 or not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise ValueError(f"confidence: wants numbers in [0, 1], at least one, without NaN; got {len(confidence)} rows")
    return confidence.double(), outcome.double()


def _cumulative(confidence: Tensor, outcome: Tensor) -> tuple[Float[Tensor, " level"], Scalar]:
    """C at the ends of blocks of ties, 0 first, and the standard deviation of its end."""
    c, a = _checked(confidence, outcome)
    levels, block = c.unique(return_inverse=True)
    gained = torch.zeros_like(levels).index_add(0, block, a - c) / len(c)
    walk = torch.nn.functional.pad(gained.cumsum(0), (1, 0))
    return walk, (c * (1 - c)).sum().sqrt() / len(c)


def _standardised(statistic: Scalar, scale: Scalar) -> Scalar:
    """In standard deviations; where nothing is random, zero or infinite."""
    return torch.where(statistic <= 1e-12, 0.0, statistic / scale)


def _tail_of_maximum(x: Scalar) -> Scalar:
    """P(max |B| > x) of Brownian motion on [0, 1]: 1 - 4 / pi sum_k (-1)^k / (2k + 1) exp(-(2k + 1)^2 pi^2 / 8x^2)."""
    odd = 2 * torch.arange(SERIES, dtype=torch.float64, device=x.device) + 1
    sign = 1 - 2 * (torch.arange(SERIES, device=x.device) % 2)
    if x == 0:
        return torch.ones_like(x)
    if x > 5:  # by reflection, where the sum loses its digits
        return 2 * torch.special.erfc(x / math.sqrt(2))
    inside = 4 / math.pi * (sign / odd * torch.exp(-(odd.square()) * math.pi**2 / (8 * x.square()))).sum()
    return (1 - inside).clamp(0.0, 1.0)


def _tail_of_range(x: Scalar) -> Scalar:
    """P(range of B > x) = 4 sum_{k >= 1} (-1)^(k - 1) k erfc(k x / sqrt 2) (Feller 1951); 1 to 1e-8 below 0.5."""
    if x < 0.5:
        return torch.ones_like(x)
    k = torch.arange(1, SERIES + 1, dtype=torch.float64, device=x.device)
    sign = 2 * (torch.arange(1, SERIES + 1, device=x.device) % 2) - 1
    return (4 * (sign * k * torch.special.erfc(k * x / math.sqrt(2))).sum()).clamp(0.0, 1.0)
