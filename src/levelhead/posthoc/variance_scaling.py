"""Variance scaling for regression: one factor a target makes the squared errors as large as was said. Closed form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from levelhead.predictive import GaussianMixture, Predictive
from levelhead.predictor import Predictor, predict
from levelhead.recalibration.held_out import FittedOnRows, gaussian, undecided
from levelhead.tasks.task import Task
from levelhead.types import Reference

SMALLEST = 1e-12  # of a factor: rows that are met exactly would give a density without bound


@dataclass(frozen=True)
class VarianceScaling:
    """s_t^2 = mean over task.calibration of z_t^2,  z = (y - mean) / standard deviation of the mixture, a target each.

    Maximum likelihood for one Gaussian, and mean z^2 = 1 on the calibration rows afterwards for any mixture, which is
    stretched by s about its mean: the variance within and between members, and so total, aleatoric and epistemic, times
    s^2. Means stay. `Temperature` fits one factor for all targets by the mixture's own likelihood instead.

    Raises CannotCompose for classes, and after conformal or selective steps.

    Laves et al., arXiv 2104.12376 (sigma scaling); Levi et al., arXiv 1905.11659.
    """

    reference: ClassVar = Reference(
        "Laves et al.",
        2021,
        arxiv="2104.12376",
        title="Recalibration of Aleatoric and Epistemic Regression Uncertainty in Medical Imaging",
    )
    wants_targets: ClassVar = True

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, rescaled."""
        step = "VarianceScaling()"
        belief = gaussian(undecided(predict(predictor, task.calibration), step=step), step=step)
        y = task.calibration.y.to(belief.means.device, torch.float64)
        squared = (y - belief.mean.double()).square() / belief.variance.double()
        factors = reduce(squared, "... target -> target", "mean").clamp_min(SMALLEST)
        return Stretched(predictor, factors, task.calibration.digest)


class Stretched(FittedOnRows):
    """A predictor whose mixtures are stretched about their mean: variance of target t times factors[t]."""

    factors: Tensor

    def __init__(self, inner: Predictor, factors: Float[Tensor, " target"], fitted_on: str = "") -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("factors", factors)
        self.fitted_on = fitted_on
        self.eval()

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        belief = gaussian(undecided(self.inner(x), step="Stretched"), step="Stretched")
        factors = self.factors.to(belief.means)
        mean = belief.mean
        means = mean + factors.sqrt() * (belief.means - mean)
        model = None if belief.model_variances is None else factors * belief.model_variances
        variances = factors * belief.variances
        return GaussianMixture(means, variances, belief.log_weights, belief.log_density, model_variances=model)

    def children_predictors(self) -> Sequence[Predictor]:
        """The predictor inside."""
        return (self.inner,)
