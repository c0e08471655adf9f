"""Prediction sets: labels whose strangeness is at most that of most calibration rows. Shared by LAC, APS and RAPS."""

from collections.abc import Sequence
from typing import Protocol

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.conformal.content import row_uniforms
from levelhead.conformal.ranks import threshold, weighted_thresholds
from levelhead.conformal.ratio import DensityRatio, described, shift_weights
from levelhead.predictive import Predictive
from levelhead.predictor import Predictor
from levelhead.recalibration.held_out import categorical, fresh_rows, undecided
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose


class LabelScore(Protocol):
    """A spec that says how strange each label is."""

    @property
    def alpha(self) -> float:
        """The error rate: sets hold the label of a new row with probability at least 1 - alpha."""

    @property
    def per_class(self) -> bool:
        """Whether every class has a threshold of its own."""

    @property
    def covariate_shift(self) -> bool:
        """Whether calibration rows are weighted towards task.unlabelled."""

    @property
    def ratio_penalty(self) -> float:
        """On the logistic regression that finds the weights."""

    @property
    def randomised(self) -> bool:
        """Whether `scores` uses its uniform numbers."""

    def scores(self, log_probs: Float[Tensor, "row class"], u: Float[Tensor, " row"]) -> Float[Tensor, "row class"]:
        """The strangeness of each label."""


class PredictionSets(Predictor):
    """A predictor whose beliefs carry the labels that score at most a threshold; the beliefs themselves stay.

    scores, labels  (row,): of the calibration rows, all that thresholds need.
    log_weights     (row,): their log density ratios, and `ratio` to compute those of new rows; None without weights.
    calibrated_on   digest of the calibration rows.
    noise           seed of randomised sets, which belong to the row's content; None draws afresh.
    """

    scores: Tensor
    labels: Tensor
    log_weights: Tensor | None
    ratio: Tensor | None

    def __init__(
        self,
        inner: Predictor,
        score: LabelScore,
        scores: Float[Tensor, " row"],
        labels: Int[Tensor, " row"],
        log_weights: Float[Tensor, " row"] | None = None,
        ratio: Float[Tensor, "3 feature"] | None = None,
        calibrated_on: str = "",
        noise: int | None = 0,
    ) -> None:
        super().__init__()
        self.inner = inner
        self.score = score
        for name, tensor in (("scores", scores), ("labels", labels), ("log_weights", log_weights), ("ratio", ratio)):
            self.register_buffer(name, tensor)
        self.calibrated_on = calibrated_on
        self.noise = noise
        self.eval()

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        step = type(self.score).__name__
        belief = categorical(self.inner(x), step=step)
        with torch.no_grad():
            log_probs = belief.log_probs.double()
            strange = self.score.scores(log_probs, uniforms(self.score, x, self.noise))
            sets = strange <= self.thresholds(x, log_probs.shape[-1])
        return belief.with_sets(sets)

    def thresholds(self, x: Float[Tensor, "batch *input"], num_classes: int) -> Float[Tensor, "any class"]:
        """The largest score of a label in the set, for every row where rows are weighted, and every class."""
        at = None if self.ratio is None else DensityRatio.of(self.ratio)(described(self.inner, x))
        columns = []
        for label in range(num_classes) if self.score.per_class else (None,):
            rows = slice(None) if label is None else self.labels == label
            scores = self.scores[rows].double()
            if at is None or self.log_weights is None:
                columns.append(threshold(scores, self.score.alpha).reshape(1))
            else:
                log_weights = self.log_weights[rows].double()
                columns.append(weighted_thresholds(scores, log_weights, at=at, alpha=self.score.alpha))
        found = torch.stack(columns, dim=-1)
        return found if self.score.per_class else found.expand(-1, num_classes)

    def children_predictors(self) -> Sequence[Predictor]:
        """The predictor inside."""
        return (self.inner,)

    def with_noise(self, noise: int | None) -> "PredictionSets":
        """See `Predictor.with_noise`."""
        self.noise = noise
        self.inner.with_noise(noise)
        return self


def uniforms(score: LabelScore, x: Float[Tensor, "batch *input"], noise: int | None) -> Float[Tensor, " batch"]:
    """The uniform number of each row; zeros where the score takes none."""
    if not score.randomised:
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)
    if noise is None:
        return torch.rand(len(x), dtype=torch.float64, device=x.device)
    return row_uniforms(x, noise)


@torch.no_grad()
def prediction_sets(predictor: Predictor, task: Task, score: LabelScore) -> PredictionSets:
    """The predictor with sets whose thresholds come from task.calibration.

    Raises CannotCompose where the promise would not hold: something inside was fitted on the same rows, rows are sites
    of one image, or the beliefs carry sets already.
    """
    step = f"{type(score).__name__}()"
    calibrated_on = fresh_rows(predictor, task, step=step)
    if task.calibration.y.ndim - int(task.calibration.y.is_floating_point()) != 1:
        raise CannotCompose(
            f"{step} promises coverage for exchangeable rows, and the pixels of one image are not. Write "
            "posthoc=(Temperature(),) to calibrate them, or use a task with one label for each input"
        )
    found, labels = [], []
    for batch in task.calibration.ordered(500):
        belief = categorical(undecided_sets(predictor(batch.x), step=step), step=step)
        y = batch.y.argmax(-1) if batch.y.is_floating_point() else batch.y
        strange = score.scores(belief.log_probs.double(), uniforms(score, batch.x, 0))
        kept = torch.ones_like(y, dtype=torch.bool) if task.likelihood.void is None else y != task.likelihood.void
        picked = strange.gather(-1, rearrange(torch.where(kept, y, 0), "b -> b 1"))
        found.append(rearrange(picked, "b 1 -> b")[kept])
        labels.append(y[kept])
    log_weights, ratio = shift_weights(predictor, task, score, step=step) if score.covariate_shift else (None, None)
    table = None if ratio is None else ratio.table
    return PredictionSets(predictor, score, torch.cat(found), torch.cat(labels), log_weights, table, calibrated_on)


def undecided_sets(belief: Predictive, *, step: str) -> Predictive:
    """The belief, unless it carries sets or intervals already; abstentions may stay, for they change no belief."""
    undecided(belief.with_accepted(None), step=step)
    return belief
