"""Prediction intervals for real targets, widened until they hold for most calibration rows."""

from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.conformal.ranks import threshold, weighted_thresholds
from levelhead.conformal.ratio import DensityRatio, described, shift_weights
from levelhead.predictive import GaussianMixture, Predictive
from levelhead.predictor import Predictor, predict
from levelhead.recalibration.held_out import fresh_rows, gaussian, undecided
from levelhead.tasks.task import Task

Side = Float[Tensor, "*batch target"]


class TargetScore(Protocol):
    """A spec that says how strange a target is, and which targets are no stranger than a threshold."""

    @property
    def alpha(self) -> float:
        """The error rate."""

    @property
    def covariate_shift(self) -> bool:
        """Whether calibration rows are weighted towards task.unlabelled."""

    @property
    def ratio_penalty(self) -> float:
        """On the logistic regression that finds the weights."""

    def scores(self, belief: GaussianMixture, y: Side) -> Side:
        """The strangeness of targets, float64."""

    def sides(self, belief: GaussianMixture, q: Side) -> tuple[Side, Side]:
        """The lowest and the highest target whose score is at most q, float64; -inf and inf where q is infinite."""


class PredictionIntervals(Predictor):
    """A predictor whose beliefs carry an interval for each target; the beliefs themselves stay.

    scores         (row, target): of the calibration rows, all that thresholds need.
    log_weights    (row,): their log density ratios, and `ratio` to compute those of new rows; None without weights.
    calibrated_on  digest of the calibration rows.
    """

    scores: Tensor
    log_weights: Tensor | None
    ratio: Tensor | None

    def __init__(
        self,
        inner: Predictor,
        score: TargetScore,
        scores: Float[Tensor, "row target"],
        log_weights: Float[Tensor, " row"] | None = None,
        ratio: Float[Tensor, "3 feature"] | None = None,
        calibrated_on: str = "",
    ) -> None:
        super().__init__()
        self.inner = inner
        self.score = score
        for name, tensor in (("scores", scores), ("log_weights", log_weights), ("ratio", ratio)):
            self.register_buffer(name, tensor)
        self.calibrated_on = calibrated_on
        self.eval()

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        belief = gaussian(self.inner(x), step=type(self.score).__name__)
        with torch.no_grad():
            q = self.thresholds(x).expand(belief.means.shape[1:])
            intervals = torch.stack(self.score.sides(belief, q), dim=-1)
        return belief.with_intervals(intervals.to(belief.means.dtype))

    def thresholds(self, x: Float[Tensor, "batch *input"]) -> Float[Tensor, "any target"]:
        """The largest score of a target in the interval, for every row where rows are weighted, and every target."""
        scores = self.scores.double().unbind(-1)
        if self.ratio is None or self.log_weights is None:
            return torch.stack([threshold(column, self.score.alpha).reshape(1) for column in scores], dim=-1)
        at = DensityRatio.of(self.ratio)(described(self.inner, x))
        weights = self.log_weights.double()
        found = [weighted_thresholds(column, weights, at=at, alpha=self.score.alpha) for column in scores]
        return torch.stack(found, dim=-1)

    def children_predictors(self) -> Sequence[Predictor]:
        """The predictor inside."""
        return (self.inner,)


@torch.no_grad()
def prediction_intervals(predictor: Predictor, task: Task, score: TargetScore) -> PredictionIntervals:
    """The predictor with intervals whose thresholds come from task.calibration.

    Raises CannotCompose for classes, where something inside was fitted on the same rows, and after another interval.
    """
    step = f"{type(score).__name__}()"
    calibrated_on = fresh_rows(predictor, task, step=step)
    belief = gaussian(predict(predictor, task.calibration), step=step)
    undecided(belief.with_accepted(None), step=step)
    scores = score.scores(belief, task.calibration.y.to(belief.means.device, torch.float64))
    log_weights, ratio = shift_weights(predictor, task, score, step=step) if score.covariate_shift else (None, None)
    table = None if ratio is None else ratio.table
    return PredictionIntervals(predictor, score, scores, log_weights, table, calibrated_on)
