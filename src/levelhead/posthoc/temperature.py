"""Temperature scaling: one number, fitted on held-out rows, makes confidence match accuracy and moves no label."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.line_search import minimise
from levelhead.metrics.held_out import held_out_nll
from levelhead.predictive import CategoricalMixture, GaussianMixture, Predictive
from levelhead.predictor import Predictor, predict
from levelhead.recalibration.held_out import FEW_ROWS, MIN_LOG_PROB, FittedOnRows, undecided
from levelhead.recalibration.members import through
from levelhead.tasks.task import Task
from levelhead.types import Reference

GAUSSIAN_RANGE = 1e-4, 1e4  # variances of an over-fitted regression can be off by orders of magnitude
AT_BOUND = (
    "Temperature: the best temperature on {n} calibration rows is the bound {value:g}, at which confidence is "
    "{direction} than those rows can tell. Hold out more rows for calibration, or leave Temperature() out."
)


@dataclass(frozen=True)
class Temperature:
    """p_T(y|x) = p(y|x)^(1/T) / sum, with T the minimiser of the negative log likelihood on task.calibration.

    A mixture is pooled first and calibrated then: p is the mixture, so labels and ranking within a row stay. Its
    members are tempered by the same T and drawn together just as far as makes their mixture p_T (`tempered`), so that
    total, aleatoric and epistemic uncertainty still add up. To temper members one by one, put it inside the member.
    Regression: the density's power, for one Gaussian variance * T; a mixture is stretched by sqrt(T) about its mean.

    lowest, highest  bounds of T for classes. The loss is convex in 1/T, so a minimum at a bound means that the rows
                     cannot tell (a handful, or all of them right): a warning says so.

    Guo et al., arXiv 1706.04599; pooling before calibration after Rahaman & Thiery, arXiv 2007.08792.
    """

    reference: ClassVar = Reference(
        "Guo et al.", 2017, arxiv="1706.04599", title="On Calibration of Modern Neural Networks"
    )
    keeps_labels: ClassVar = True
    lowest: float = 0.05
    highest: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.lowest < self.highest:
            raise ValueError(f"Temperature: wants 0 < lowest < highest, got {self.lowest} and {self.highest}")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, tempered."""
        belief = undecided(predict(predictor, task.calibration), step="Temperature()")
        temperature = self.fitted(belief, task)
        if isinstance(belief, CategoricalMixture) and len(task.calibration) >= FEW_ROWS:
            for bound, direction in ((self.lowest, "higher"), (self.highest, "lower")):
                if abs(temperature / bound - 1) < 1e-3:
                    text = AT_BOUND.format(n=len(task.calibration), value=bound, direction=direction)
                    warnings.warn(text, stacklevel=2)
        return Tempered(predictor, temperature, task.calibration.digest)

    def fitted(self, belief: Predictive, task: Task) -> float:
        """The temperature with the smallest loss, given the beliefs about the calibration rows."""
        y = task.calibration.y.to(belief.log_weights.device)
        if isinstance(belief, CategoricalMixture):
            pooled = belief.log_probs.double().clamp_min(MIN_LOG_PROB)[None]
            void = task.likelihood.void
            return minimise(
                lambda t: float(held_out_nll(CategoricalMixture(pooled / t), y, void=void)), self.lowest, self.highest
            )
        assert isinstance(belief, GaussianMixture)
        precise = GaussianMixture(belief.means.double(), belief.variances.double(), belief.log_weights.double())
        return minimise(lambda t: float(held_out_nll(stretched(precise, t), y.double())), *GAUSSIAN_RANGE)


class Tempered(FittedOnRows):
    """A predictor whose beliefs are raised to the power 1 / temperature."""

    def __init__(self, inner: Predictor, temperature: float, fitted_on: str = "") -> None:
        super().__init__()
        self.inner = inner
        self.temperature = temperature
        self.fitted_on = fitted_on
        self.eval()

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        belief = undecided(self.inner(x), step="Temperature()")
        if isinstance(belief, CategoricalMixture):
            return tempered(belief, self.temperature)
        assert isinstance(belief, GaussianMixture)
        return stretched(belief, self.temperature)

    def children_predictors(self) -> Sequence[Predictor]:
        """The predictor inside."""
        return (self.inner,)


def tempered(belief: CategoricalMixture, temperature: float) -> CategoricalMixture:
    """The mixture to the power 1 / T, as members under the same weights (see `recalibration.members.through`).

    Exact: the members mix to the power of the mixture. At T = 1 nothing changes, and one member is simply tempered.
    """
    return through(belief, lambda log_probs: (log_probs / temperature).log_softmax(-1))


def stretched(belief: GaussianMixture, temperature: float) -> GaussianMixture:
    """The mixture stretched by sqrt(T) about its mean: every variance, within and between members, times T."""
    mean = belief.mean
    means = mean + temperature**0.5 * (belief.means - mean)
    model = None if belief.model_variances is None else temperature * belief.model_variances
    variances = temperature * belief.variances
    return GaussianMixture(means, variances, belief.log_weights, belief.log_density, model_variances=model)
