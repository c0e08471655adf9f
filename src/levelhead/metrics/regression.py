"""Errors, proper scores, calibration and sharpness of Gaussian mixtures over real targets.

`means`, `variances` (member, *batch, target) and `log_weights` (member,) are those of a predictive; one member is one
Gaussian. A moment-matched score, as UCI papers report, is the score of one member: the mixture's mean and variance.
Results are float64 means over rows and targets in the targets' units; a joint density sums over targets.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.predictive import LOG_TWO_PI, along_members, normalised
from levelhead.types import Scalar

QUANTILE_BISECTIONS = 60  # past float64: the bracket shrinks by 2^60


def rmse(mean: Float[Tensor, "*batch target"], y: Float[Tensor, "*batch target"]) -> Scalar:
    """sqrt(mean over rows and targets of (y - mean)^2), in target units."""
    return (y.double() - mean.double()).square().mean().sqrt()


def mae(mean: Float[Tensor, "*batch target"], y: Float[Tensor, "*batch target"]) -> Scalar:
    """Mean over rows and targets of |y - mean|, in target units."""
    return (y.double() - mean.double()).abs().mean()


def mixture_nll(
    means: Float[Tensor, "member *batch target"],
    variances: Float[Tensor, "member *batch target"],
    *,
    y: Float[Tensor, "*batch target"],
    log_weights: Float[Tensor, " member"] | None = None,
) -> Scalar:
    """-mean over rows of log sum_m w_m prod_t N(y_t; mean_mt, variance_mt), in nats; uniform weights by default."""
    mixture = _Mixture.of(means, variances, log_weights)
    density = -0.5 * ((y.double() - mixture.means).square() / mixture.variances + mixture.variances.log() + LOG_TWO_PI)
    joint = density.sum(-1)
    return -torch.logsumexp(joint + along_members(mixture.log_weights, joint.ndim), dim=0).mean()


def crps(
    means: Float[Tensor, "member *batch target"],
    variances: Float[Tensor, "member *batch target"],
    *,
    y: Float[Tensor, "*batch target"],
    log_weights: Float[Tensor, " member"] | None = None,
) -> Scalar:
    """Continuous ranked probability score E|Y - y| - E|Y - Y'| / 2 of the mixture's marginals, in target units.

    Closed form: sum_i w_i A(y - mean_i, var_i) - 1/2 sum_ij w_i w_j A(mean_i - mean_j, var_i + var_j), with
    A(m, v) = 2 sqrt(v) phi(m / sqrt(v)) + m (2 Phi(m / sqrt(v)) - 1) = E|N(m, v)|. Time members^2, memory members.
    For one member: s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z = (y - mean) / s. Zero variance means a point.
    Grimit, Gneiting, Berrocal and Johnson 2006, "The continuous ranked probability score for circular variables and
    its application to mesoscale forecast ensemble verification".
    """
    mixture = _Mixture.of(means, variances, log_weights, points=True)
    weights = along_members(mixture.log_weights, mixture.means.ndim).exp()
    error = (weights * _mean_absolute(y.double() - mixture.means, mixture.variances)).sum(0)
    spread = torch.zeros_like(error)
    for mean, variance, weight in zip(mixture.means, mixture.variances, weights, strict=True):
        apart = _mean_absolute(mean - mixture.means, variance + mixture.variances)
        spread = spread + weight * (weights * apart).sum(0)
    return (error - spread / 2).mean()


def mixture_cdf(
    means: Float[Tensor, "member *batch target"],
    variances: Float[Tensor, "member *batch target"],
    *,
    y: Float[Tensor, "*batch target"],
    log_weights: Float[Tensor, " member"] | None = None,
) -> Float[Tensor, "*batch target"]:
    """F(y) = sum_m w_m Phi((y - mean_m) / s_m) of each row and target: uniform on [0, 1] if the predictive is right."""
    mixture = _Mixture.of(means, variances, log_weights)
    below = torch.special.ndtr((y.double() - mixture.means) / mixture.variances.sqrt())
    return (along_members(mixture.log_weights, below.ndim).exp() * below).sum(0)


def mixture_quantile(
    means: Float[Tensor, "member *batch target"],
    variances: Float[Tensor, "member *batch target"],
    *,
    level: float,
    log_weights: Float[Tensor, " member"] | None = None,
) -> Float[Tensor, "*batch target"]:
    """The value whose F is `level`, by bisection between the members' own quantiles, which bracket the mixture's."""
    if not 0 < level < 1:
        raise ValueError(f"level: wants a probability in (0, 1), got {level}")
    mixture = _Mixture.of(means, variances, log_weights)
    z = torch.special.ndtri(mixture.means.new_tensor(level))
    of_members = mixture.means + z * mixture.variances.sqrt()
    low, high = of_members.amin(0), of_members.amax(0)
    for _ in range(QUANTILE_BISECTIONS):
        middle = (low + high) / 2
        short = mixture_cdf(mixture.means, mixture.variances, y=middle, log_weights=mixture.log_weights) < level
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return (low + high) / 2


class Coverage(NamedTuple):
    """Share of targets inside the interval, and its binomial standard error if the nominal level were true."""

    share: Scalar
    standard_error: Scalar


def interval_coverage(
    lower: Float[Tensor, "*batch target"],
    upper: Float[Tensor, "*batch target"],
    *,
    y: Float[Tensor, "*batch target"],
    level: float = 0.95,
) -> Coverage:
    """PICP: share of targets with lower <= y <= upper, to hold against the nominal `level`."""
    return _coverage((lower <= y) & (y <= upper), level)


def central_coverage(cdf: Float[Tensor, "*batch target"], *, level: float = 0.95) -> Coverage:
    """Coverage of the central interval of mass `level`, from F(y) (`mixture_cdf`): |F - 1/2| <= level / 2."""
    return _coverage((cdf - 0.5).abs() <= level / 2, level)


def quantile_calibration_error(
    cdf: Float[Tensor, "*batch target"], *, levels: int = 99, norm: Literal["l1", "l2"] = "l1"
) -> Scalar:
    """Mean over `levels` evenly spaced t in (0, 1) of |share of F(y) <= t - t|, in [0, 1/2]; "l2": root mean square.

    One-sided quantiles, as Kuleshov et al. (arXiv 1807.00263): a biased mean shows, which central intervals can hide.
    """
    t = torch.arange(1, levels + 1, dtype=torch.float64, device=cdf.device) / (levels + 1)
    reached = torch.searchsorted(cdf.double().flatten().sort().values, t, right=True).double() / cdf.numel()
    return (reached - t).abs().mean() if norm == "l1" else (reached - t).square().mean().sqrt()


def sharpness(
    means: Float[Tensor, "member *batch target"],
    variances: Float[Tensor, "member *batch target"],
    *,
    log_weights: Float[Tensor, " member"] | None = None,
) -> Scalar:
    """Mean over rows and targets of the mixture's standard deviation, in target units; smaller is sharper.

    Says nothing alone: print it beside a calibration error.
    """
    mixture = _Mixture.of(means, variances, log_weights, points=True)
    weights = along_members(mixture.log_weights, mixture.means.ndim).exp()
    mean = (weights * mixture.means).sum(0)
    return (weights * (mixture.variances + (mixture.means - mean).square())).sum(0).sqrt().mean()


def mean_width(lower: Float[Tensor, "*batch target"], upper: Float[Tensor, "*batch target"]) -> Scalar:
    """MPIW: mean width of the intervals, in target units."""
    return (upper.double() - lower.double()).mean()


class _Mixture(NamedTuple):
    means: Tensor
    variances: Tensor
    log_weights: Tensor

    @classmethod
    def of(cls, means: Tensor, variances: Tensor, log_weights: Tensor | None, *, points: bool = False) -> "_Mixture":
        """In float64, weights normalised. Raises ValueError for variances not above 0 (`points`: below 0)."""
        if not bool((variances >= 0 if points else variances > 0).all()):
            wanted = "of at least 0" if points else "above 0"
            raise ValueError(f"variances: wants numbers {wanted}, the smallest is {float(variances.amin()):.3g}")
        means = means.double()
        return cls(means, variances.double(), normalised(log_weights, means))


def _mean_absolute(m: Tensor, variance: Tensor) -> Tensor:
    """E|N(m, variance)|; |m| where the variance is zero."""
    std = variance.sqrt()
    z = m / torch.where(std > 0, std, 1.0)
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return torch.where(std > 0, 2 * std * density + m * torch.special.erf(z / math.sqrt(2)), m.abs())


def _coverage(inside: Tensor, level: float) -> Coverage:
    if not 0 < level < 1:
        raise ValueError(f"level: wants a probability in (0, 1), got {level}")
    share = inside.double().mean()
    return Coverage(share, torch.full_like(share, math.sqrt(level * (1 - level) / inside.numel())))
