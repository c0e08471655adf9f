"""Are a regressor's probabilities and standard deviations right, and do they point at its errors?

`cdf` is F(y) of each row and target (`mixture_cdf`): uniform on [0, 1] if the predictive is right. `std` and `error`
are a predictive's standard deviation and y - mean, flat, in target units.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.metrics.calibration import equal_mass_edges
from levelhead.metrics.ranking import risk_coverage
from levelhead.types import Scalar

BINS = 10
SERIES = 100


def interval_calibration_error(
    cdf: Float[Tensor, "*batch target"], *, levels: int = 99, norm: Literal["l1", "l2"] = "l1"
) -> Scalar:
    """Mean over `levels` evenly spaced t in (0, 1) of |coverage of the central interval of mass t - t|, in [0, 1/2].

    What uncertainty-toolbox prints by default. Errors of opposite sign in the two tails cancel: a biased mean can look
    calibrated, which `quantile_calibration_error` does not let pass.
    """
    t = torch.arange(1, levels + 1, dtype=torch.float64, device=cdf.device) / (levels + 1)
    reach = (2 * (cdf.double().flatten() - 0.5).abs()).sort().values
    covered = torch.searchsorted(reach, t, right=True).double() / cdf.numel()
    return (covered - t).abs().mean() if norm == "l1" else (covered - t).square().mean().sqrt()


def quantile_error_floor(rows: int) -> float:
    """What `quantile_calibration_error` reads on average when the predictive is right: sqrt(pi / (32 rows)).

    The mean of E|N(0, t (1 - t) / rows)| over t. Rows are independent F(y): targets of one row may not be.
    """
    return math.sqrt(math.pi / (32 * rows))


def pit_histogram(cdf: Float[Tensor, "*batch target"], *, bins: int = BINS) -> Int[Tensor, " bin"]:
    """Counts of F(y) in `bins` equal bins, 1 in the last: flat if right, a U if overconfident, a hump if too wide."""
    _check_cdf(cdf)
    place = (cdf.double().flatten() * bins).long().clamp_max(bins - 1)
    return torch.zeros(bins, dtype=torch.long, device=cdf.device).index_add(0, place, torch.ones_like(place))


class Uniformity(NamedTuple):
    """Kolmogorov-Smirnov distance in [0, 1], and the chance of one as large if the predictive is right (many rows)."""

    statistic: Scalar
    p_value: Scalar


def pit_test(cdf: Float[Tensor, "*batch target"]) -> Uniformity:
    """Kolmogorov-Smirnov test of F(y) against the uniform distribution; p by Kolmogorov's series with Stephens' n."""
    _check_cdf(cdf)
    u = cdf.double().flatten().sort().values
    num = len(u)
    steps = torch.arange(num + 1, dtype=torch.float64, device=u.device) / num
    statistic = torch.maximum((steps[1:] - u).amax(), (u - steps[:-1]).amax())
    x = statistic * (math.sqrt(num) + 0.12 + 0.11 / math.sqrt(num))
    k = torch.arange(1, SERIES + 1, dtype=torch.float64, device=u.device)
    tail = 2 * ((1 - 2 * ((k + 1) % 2)) * torch.exp(-2 * k.square() * x.square())).sum()
    return Uniformity(statistic, torch.where(x < 0.2, 1.0, tail.clamp(0.0, 1.0)))


class SpreadBins(NamedTuple):
    """Rows in equal-mass bins of their standard deviation: RMS error promised and seen, and their number."""

    predicted: Float[Tensor, " bin"]
    seen: Float[Tensor, " bin"]
    rows: Int[Tensor, " bin"]


def spread_bins(std: Float[Tensor, " row"], error: Float[Tensor, " row"], *, bins: int = BINS) -> SpreadBins:
    """Root mean variance and root mean square error in equal-mass bins of `std`; equal values share a bin."""
    _check_std(std)
    std, error = std.double(), error.double()
    edges = equal_mass_edges(std, bins=bins)
    place = torch.bucketize(std, edges[1:-1])
    zero = std.new_zeros(len(edges) - 1)
    count = zero.index_add(0, place, torch.ones_like(std))
    predicted = (zero.index_add(0, place, std.square()) / count).sqrt()
    seen = (zero.index_add(0, place, error.square()) / count).sqrt()
    return SpreadBins(predicted, seen, count.long())


def ence(std: Float[Tensor, " row"], error: Float[Tensor, " row"], *, bins: int = BINS) -> Scalar:
    """Expected normalised calibration error (1 / B) sum_b |RMV_b - RMSE_b| / RMV_b, at least 0; see `spread_bins`.

    Print `ence_floor` beside it, and `spread_variation`: a constant standard deviation of the right size gives 0.
    Infinite where a bin promises no error and makes some. Levi et al., arXiv 1905.11659.
    """
    table = spread_bins(std, error, bins=bins)
    gap = (table.predicted - table.seen).abs()
    return torch.where(gap > 0, gap / table.predicted, 0.0).mean()


def ence_floor(rows: int, *, bins: int = BINS) -> float:
    """What ENCE reads on average for right Gaussians: sqrt(bins / (pi rows)), for bins of many rows."""
    return math.sqrt(bins / (math.pi * rows))


def uce(std: Float[Tensor, " row"], error: Float[Tensor, " row"], *, bins: int = BINS) -> Scalar:
    """Uncertainty calibration error sum_b (n_b / n) |mean variance_b - mean square error_b|, in squared target units.

    In equal-mass bins. Laves et al. 2020, "Well-calibrated regression uncertainty in medical imaging with deep
    learning".
    """
    table = spread_bins(std, error, bins=bins)
    return (table.rows.double() / len(std) * (table.predicted.square() - table.seen.square()).abs()).sum()


def spread_variation(std: Float[Tensor, " row"]) -> Scalar:
    """Coefficient of variation sd(std) / mean(std): 0 where every row is thought equally hard. Levi et al."""
    _check_std(std)
    std = std.double()
    if len(std) < 2 or not bool(std.mean() > 0):
        raise ValueError("std: wants at least two rows, and not all of them zero")
    return std.std() / std.mean()


class Sparsification(NamedTuple):
    """Error left after removing the most uncertain share of the rows, and after removing the worst ones."""

    removed: Float[Tensor, " row"]
    error: Float[Tensor, " row"]
    best: Float[Tensor, " row"]


def sparsification(
    uncertainty: Float[Tensor, " row"], error: Float[Tensor, " row"], *, root: bool = True
) -> Sparsification:
    """Root mean square error (`root`; else mean absolute error) of the n, n - 1, ..., 1 most certain rows.

    Ilg et al., arXiv 1802.07095. Ties in the uncertainty are averaged over their orders.
    """
    loss = error.double().square() if root else error.double().abs()
    kept, best = risk_coverage(uncertainty, loss), risk_coverage(loss, loss)
    risks = [curve.risk.clamp_min(0.0).sqrt() if root else curve.risk for curve in (kept, best)]
    return Sparsification((1 - kept.coverage).flip(0), risks[0].flip(0), risks[1].flip(0))


def ause(
    uncertainty: Float[Tensor, " row"], error: Float[Tensor, " row"], *, root: bool = True, normalised: bool = True
) -> Scalar:
    """Area under the sparsification error: mean over removed shares of (error left - that of the best order), >= 0.

    `normalised` divides by the error of all rows. Zero where the uncertainty sorts by |error|; 0 too without errors.
    """
    curve = sparsification(uncertainty, error, root=root)
    area = (curve.error - curve.best).mean()
    whole = curve.error[0]
    return torch.where(whole > 0, area / whole, 0.0) if normalised else area


def _check_cdf(cdf: Tensor) -> None:
    if cdf.numel() == 0 or not bool(((cdf >= 0) & (cdf <= 1)).all()):
        raise ValueError("cdf: wants values F(y) in [0, 1], at least one, without NaN")


def _check_std(std: Tensor) -> None:
    if len(std) == 0 or not bool((std >= 0).all()):
        raise ValueError("std: wants standard deviations of at least 0, at least one, without NaN")
