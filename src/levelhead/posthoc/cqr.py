"""Conformal prediction intervals for regression: the mixture's own quantiles, moved until they cover."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.conformal.intervals import prediction_intervals
from levelhead.conformal.ranks import check_alpha
from levelhead.metrics.regression import mixture_cdf, mixture_quantile
from levelhead.predictive import GaussianMixture
from levelhead.predictor import Predictor
from levelhead.tasks.task import Task
from levelhead.types import Reference

SCORES = ("quantiles", "normalised", "absolute", "distribution")


@dataclass(frozen=True)
class CQR:
    """[lo - q, hi + q] with the mixture's alpha/2 and 1 - alpha/2 quantiles lo, hi; q makes calibration rows covered.

    q is the ceil((n + 1)(1 - alpha))-th smallest score of the n calibration rows, a target each, so that
    P(y_t in interval) >= 1 - alpha for exchangeable rows, whatever the predictor; infinite where n < 1 / alpha - 1.
    Nothing else may be fitted on these rows (a recipe shares them out). Beliefs stay as they are. An interval whose
    sides cross (q very negative) is empty.

    score  "quantiles": s = max(lo - y, y - hi), conformalised quantile regression. "normalised": s = |y - mean| / sd,
           "absolute": s = |y - mean|, one width for all. "distribution": s = |F(y) - 1/2| with F the mixture's
           distribution function, so the interval is between two quantiles whose levels were recalibrated (Kuleshov et
           al., arXiv 1807.00263, with a finite-sample promise: Chernozhukov et al., arXiv 1909.07889).
    alpha, covariate_shift, ratio_penalty: as in `LAC`.

    Raises CannotCompose for classes, rows that something else was fitted on, and after another interval.

    Romano, Patterson & Candes, arXiv 1905.03222.
    """

    reference: ClassVar = Reference(
        "Romano, Patterson & Candes", 2019, arxiv="1905.03222", title="Conformalized Quantile Regression"
    )
    wants_targets: ClassVar = True
    needs_fresh_rows: ClassVar = True
    alpha: float = 0.1
    score: Literal["quantiles", "normalised", "absolute", "distribution"] = "quantiles"
    covariate_shift: bool = False
    ratio_penalty: float = 1e-2

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if self.score not in SCORES:
            raise ValueError(f"CQR: score must be one of {', '.join(SCORES)}, got {self.score!r}")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, with intervals."""
        return prediction_intervals(predictor, task, self)

    def scores(self, belief: GaussianMixture, y: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch target"]:
        """See `TargetScore`."""
        if self.score == "quantiles":
            low, high = (quantile(belief, level) for level in (self.alpha / 2, 1 - self.alpha / 2))
            return torch.maximum(low - y, y - high)
        if self.score == "distribution":
            cdf = mixture_cdf(belief.means, belief.variances, y=y, log_weights=belief.log_weights)
            return (cdf - 0.5).abs()
        return (y - belief.mean.double()).abs() / self._unit(belief)

    def sides(
        self, belief: GaussianMixture, q: Float[Tensor, "*batch target"]
    ) -> tuple[Float[Tensor, "*batch target"], Float[Tensor, "*batch target"]]:
        """See `TargetScore`."""
        if self.score == "quantiles":
            low, high = (quantile(belief, level) for level in (self.alpha / 2, 1 - self.alpha / 2))
            return low - q, high + q
        if self.score == "distribution":
            return at_levels(belief, 0.5 - q), at_levels(belief, 0.5 + q)
        reach = q * self._unit(belief)
        return belief.mean.double() - reach, belief.mean.double() + reach

    def _unit(self, belief: GaussianMixture) -> Tensor:
        return belief.stddev.double() if self.score == "normalised" else torch.ones((), dtype=torch.float64)


def quantile(belief: GaussianMixture, level: float) -> Float[Tensor, "*batch target"]:
    """The mixture's quantile of each row and target, float64."""
    return mixture_quantile(belief.means, belief.variances, level=level, log_weights=belief.log_weights)


def at_levels(belief: GaussianMixture, levels: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch target"]:
    """The mixture's quantiles at a level for each row and target; -inf at levels up to 0, inf from 1."""
    inside = levels.clamp(1e-12, 1 - 1e-12)
    z = torch.special.ndtri(inside)
    of_members = belief.means.double() + z * belief.variances.double().sqrt()
    low, high = of_members.amin(0), of_members.amax(0)
    for _ in range(60):  # past float64
        middle = (low + high) / 2
        cdf = mixture_cdf(belief.means, belief.variances, y=middle, log_weights=belief.log_weights)
        low, high = torch.where(cdf < inside, middle, low), torch.where(cdf < inside, high, middle)
    found = (low + high) / 2
    return found.masked_fill(levels <= 0, -torch.inf).masked_fill(levels >= 1, torch.inf)
