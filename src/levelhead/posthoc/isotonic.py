"""Isotonic calibration: the best nondecreasing map of each class's probability, fitted on held-out rows."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from levelhead.predictor import Predictor
from levelhead.recalibration.held_out import class_rows
from levelhead.recalibration.monotone import Curves, isotonic, one_against_rest, padded, top_against_rest
from levelhead.tasks.task import Task
from levelhead.types import Reference


@dataclass(frozen=True)
class Isotonic:
    """q_k proportional to g_k(p_k), with g_k the nondecreasing function of least sum (1[y = k] - g_k(p_k))^2.

    Between the ends of its level pieces g_k is a straight line, beyond them level. Labels may change (each class has
    its own curve). A mixture is pooled first; inside a combinator each member gets its own curves.

    target  "classes": one against the rest, renormalised (Zadrozny & Elkan). "top": one curve from the top label's
            confidence to its accuracy; the other classes share what is left in their old proportions.
    blend   share of the old probability in the new one. None: 1 / (rows + 1), since n rows cannot tell 0 from less;
            it keeps the likelihood finite and plateaus in order.

    Raises CannotCompose for real targets, and after conformal or selective steps.

    Zadrozny & Elkan 2002, "Transforming classifier scores into accurate multiclass probability estimates".
    """

    reference: ClassVar = Reference(
        "Zadrozny & Elkan", 2002, title="Transforming Classifier Scores into Accurate Multiclass Probability Estimates"
    )
    target: Literal["classes", "top"] = "classes"
    blend: float | None = None

    def __post_init__(self) -> None:
        if self.target not in ("classes", "top"):
            raise ValueError(f'Isotonic: target must be "classes" or "top", got {self.target!r}')
        if self.blend is not None and not 0 <= self.blend <= 1:
            raise ValueError(f"Isotonic: blend must lie in [0, 1], or be None for 1 / (rows + 1), got {self.blend}")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, calibrated."""
        rows = class_rows(predictor, task, step="Isotonic()")
        top = self.target == "top"
        probs, hits = top_against_rest(rows) if top else one_against_rest(rows)
        knots, values = padded([isotonic(p, hit) for p, hit in zip(probs, hits, strict=True)])
        blend = 1 / (len(rows.log_probs) + 1) if self.blend is None else self.blend
        return Curves(predictor, knots, values, False, top, blend, task.calibration.digest)
