"""Selective prediction: abstain on the unsure rows, so that a stated risk, or a stated coverage, holds on the rest."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from levelhead.conformal.bounds import clopper_pearson_upper
from levelhead.conformal.ranks import threshold
from levelhead.predictive import CategoricalMixture, Predictive
from levelhead.predictor import Predictor, predict
from levelhead.recalibration.held_out import FEW_ROWS, fresh_rows
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose, Reference

GRID = 20  # thresholds that are tried: coverages of 5 %, 10 %, ...
UNSURE = ("confidence", "total", "epistemic")


@dataclass(frozen=True)
class Selective:
    """Accept where uncertainty u(x) <= t, abstain elsewhere; the belief itself stays, `accepted` says which.

    By risk: t is the largest of 20 quantiles of u on the calibration rows whose Clopper-Pearson bound, at
    (1 - certainty) / 20, is at most `risk`; so, with probability `certainty` over the calibration rows, at most that
    share of accepted rows is wrong. Where none will do, everything is declined (a warning says so).
    By coverage: t is the ceil((n + 1) coverage)-th smallest u, so that at least that share of new rows is accepted.

    risk       the largest error rate among accepted rows; classes only. None: by coverage.
    coverage   the smallest share of accepted rows; give risk or coverage, not both.
    certainty  of the promise about risk.
    score      u: "confidence" (1 - max probability), "total" or "epistemic" uncertainty. Real targets have no
               confidence; there it means total.

    Both promises are for rows exchangeable with those of task.calibration, on which nothing else may be fitted (a
    recipe shares them out). Raises CannotCompose where they were, for a risk of real targets, and for pixels.

    Geifman & El-Yaniv, arXiv 1705.08500, who bisect; a fixed grid cannot lose its way where bounds are not monotone,
    and its union bound is plain (Angelopoulos et al., arXiv 2110.01052).
    """

    reference: ClassVar = Reference(
        "Geifman & El-Yaniv", 2017, arxiv="1705.08500", title="Selective Classification for Deep Neural Networks"
    )
    keeps_labels: ClassVar = True
    needs_fresh_rows: ClassVar = True
    risk: float | None = 0.1
    coverage: float | None = None
    certainty: float = 0.95
    score: Literal["confidence", "total", "epistemic"] = "confidence"

    def __post_init__(self) -> None:
        if (self.risk is None) == (self.coverage is None):
            raise ValueError(
                f"Selective: wants either risk or coverage, got {self.risk} and {self.coverage}; "
                "write Selective(risk=None, coverage=0.8) to choose by coverage"
            )
        for name in ("risk", "coverage", "certainty"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"Selective: {name} must lie between 0 and 1, got {value}")
        if self.score not in UNSURE:
            raise ValueError(f"Selective: score must be one of {', '.join(UNSURE)}, got {self.score!r}")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, which now abstains."""
        calibrated_on = fresh_rows(predictor, task, step="Selective()")
        belief = predict(predictor, task.calibration)
        if belief.accepted is not None:
            raise CannotCompose("Selective() met a predictor that abstains already; leave one of the two out")
        u = unsure(belief, self.score)
        if u.ndim != 1:
            raise CannotCompose(
                "Selective() promises something about exchangeable rows, and the pixels of one image are not. Use a "
                "task with one label for each input, or choose a threshold by looking at the risk-coverage curve on val"
            )
        if self.coverage is not None:
            return Selected(predictor, self.score, float(threshold(u, 1 - self.coverage)), None, calibrated_on)
        limit, bound = self._by_risk(belief, u, task)
        if limit == -math.inf and len(u) >= FEW_ROWS:
            warnings.warn(
                f"Selective: on {len(u)} calibration rows no threshold promises a risk of {self.risk:g} with certainty "
                f"{self.certainty:g}, so every row is declined. Allow more risk, hold out more rows, or choose by "
                "coverage",
                stacklevel=2,
            )
        return Selected(predictor, self.score, limit, bound, calibrated_on)

    def _by_risk(self, belief: Predictive, u: Float[Tensor, " row"], task: Task) -> tuple[float, float]:
        if not isinstance(belief, CategoricalMixture):
            raise CannotCompose(
                "Selective(risk=...) counts wrong labels, and this predictor speaks of real targets. Write "
                "selective(risk=None, coverage=0.8) to decline the least sure rows"
            )
        assert self.risk is not None
        y = task.calibration.y.to(u.device)
        wrong = belief.label != (y.argmax(-1) if y.is_floating_point() else y)
        return threshold_for_risk(u, wrong, risk=self.risk, delta=1 - self.certainty)


class Selected(Predictor):
    """A predictor that abstains where u(x) exceeds `limit`.

    score          which uncertainty u is.
    bound          the bound on the risk that the calibration rows gave, or None where coverage was chosen.
    calibrated_on  digest of the calibration rows.
    """

    def __init__(
        self, inner: Predictor, score: str, limit: float, bound: float | None = None, calibrated_on: str = ""
    ) -> None:
        super().__init__()
        self.inner = inner
        self.score = score
        self.limit = limit
        self.bound = bound
        self.calibrated_on = calibrated_on
        self.eval()

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        belief = self.inner(x)
        return belief.with_accepted(unsure(belief, self.score) <= self.limit)

    def children_predictors(self) -> Sequence[Predictor]:
        """The predictor inside."""
        return (self.inner,)


def unsure(belief: Predictive, score: str) -> Float[Tensor, "*batch"]:
    """u of each row: larger is less sure."""
    with torch.no_grad():
        if score == "confidence" and isinstance(belief, CategoricalMixture):
            return -torch.expm1(belief.log_probs.amax(-1).double())
        return (belief.epistemic() if score == "epistemic" else belief.total()).double()


def threshold_for_risk(
    u: Float[Tensor, " row"], wrong: Bool[Tensor, " row"], *, risk: float, delta: float
) -> tuple[float, float]:
    """The largest quantile of u whose bound is at most `risk`, and that bound; -inf and 1 where there is none.

    Rows of equal u are accepted together. The bounds hold jointly with probability 1 - delta.
    """
    ordered, order = u.sort()
    errors = wrong[order].cumsum(0)
    for step in range(GRID, 0, -1):
        middle = len(u) * step // GRID
        if middle == 0:
            break
        limit = ordered[middle - 1]
        count = int(torch.searchsorted(ordered, rearrange(limit, "-> 1"), right=True))
        bound = clopper_pearson_upper(int(errors[count - 1]), count, delta=delta / GRID)
        if bound <= risk:
            return float(limit), bound
    return -math.inf, 1.0
