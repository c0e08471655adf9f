"""Ensemble temperature scaling: a mixture of the tempered, the plain and the uniform prediction. Labels stay."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.line_search import minimise
from levelhead.predictor import Predictor
from levelhead.recalibration.held_out import class_rows
from levelhead.recalibration.members import Recalibrated
from levelhead.recalibration.mixing import mixing
from levelhead.tasks.task import Task
from levelhead.types import Reference


@dataclass(frozen=True)
class EnsembleTemperature:
    """q = w_1 p_T + w_2 p + w_3 / classes,  w in the simplex, T as in `Temperature`, both of least mean -log q_y.

    T first, then the weights: a concave problem, which EM climbs. More flexible than one temperature, and each part
    keeps the order of the classes, so accuracy stays. The mixture is of three maps of one prediction: the name has
    nothing to do with deep ensembles. A mixture is pooled first; inside a combinator each member gets its own.

    lowest, highest  bounds of T.

    Raises CannotCompose for real targets, and after conformal or selective steps.

    Zhang, Kailkhura & Han, arXiv 2003.07329.
    """

    reference: ClassVar = Reference(
        "Zhang, Kailkhura & Han",
        2020,
        arxiv="2003.07329",
        title="Mix-n-Match: Ensemble and Compositional Methods for Uncertainty Calibration in Deep Learning",
    )
    keeps_labels: ClassVar = True
    lowest: float = 0.05
    highest: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.lowest < self.highest:
            raise ValueError(f"EnsembleTemperature: wants 0 < lowest < highest, got {self.lowest} and {self.highest}")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, calibrated."""
        rows = class_rows(predictor, task, step="EnsembleTemperature()")
        temperature = minimise(lambda t: float(F.cross_entropy(rows.log_probs / t, rows.y)), self.lowest, self.highest)
        parts = three(rows.log_probs, temperature)
        y = F.one_hot(rows.y, parts.shape[-1]).double() if rows.y.ndim == 1 else rows.y
        weights = mixing((parts.exp() * y).sum(-1).mT.log()).exp()
        return ThreeTemperatures(predictor, temperature, weights, task.calibration.digest)


class ThreeTemperatures(Recalibrated):
    """The mixture of a prediction at temperatures T, 1 and infinity, under `weights` (3,)."""

    weights: Tensor

    def __init__(self, inner: Predictor, temperature: float, weights: Float[Tensor, "3"], fitted_on: str = "") -> None:
        super().__init__()
        self.inner = inner
        self.temperature = temperature
        self.register_buffer("weights", weights)
        self.fitted_on = fitted_on
        self.eval()

    def mapped(self, log_probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch class"]:
        """See `Recalibrated.mapped`."""
        parts = three(log_probs, self.temperature)
        weights = self.weights.double().clamp_min(torch.finfo(torch.float64).tiny).log()
        return torch.logsumexp(parts + weights.reshape(3, *(1,) * log_probs.ndim), dim=0).log_softmax(-1)


def three(log_probs: Float[Tensor, "*batch class"], temperature: float) -> Float[Tensor, "3 *batch class"]:
    """Log probabilities at temperature T, as they are, and uniform."""
    return torch.stack(
        [(log_probs / temperature).log_softmax(-1), log_probs, torch.zeros_like(log_probs).log_softmax(-1)]
    )
