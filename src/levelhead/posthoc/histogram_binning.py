"""Histogram binning: each class's probability becomes the share of hits in its bin of equally many held-out rows."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from levelhead.predictor import Predictor
from levelhead.recalibration.held_out import class_rows
from levelhead.recalibration.monotone import Curves, histogram, one_against_rest, padded, top_against_rest
from levelhead.tasks.task import Task
from levelhead.types import Reference


@dataclass(frozen=True)
class HistogramBinning:
    """q_k proportional to the share of y = k among the held-out rows whose p_k fell into the same bin.

    Bins are of equal mass and right-closed; equal probabilities share a bin, so there may be fewer. Labels may change.
    The map is a step function: the only gradient is that of the blend, which is the uncalibrated predictor's. A mixture
    is pooled first; inside a combinator each member gets its own bins.

    num_bins  of each class.
    target    "classes": one against the rest, renormalised. "top": the top label's confidence only; the other classes
              share what is left in their old proportions.
    blend     share of the old probability in the new one. None: 1 / (rows + 1); see `Isotonic`.

    Raises CannotCompose for real targets, and after conformal or selective steps.

    Zadrozny & Elkan 2001, "Obtaining calibrated probability estimates from decision trees and naive Bayesian
    classifiers"; equal mass after Kumar, Liang & Ma, arXiv 1909.10155.
    """

    reference: ClassVar = Reference(
        "Zadrozny & Elkan",
        2001,
        title="Obtaining Calibrated Probability Estimates from Decision Trees and Naive Bayesian Classifiers",
    )
    num_bins: int = 15
    target: Literal["classes", "top"] = "classes"
    blend: float | None = None

    def __post_init__(self) -> None:
        if self.num_bins < 1:
            raise ValueError(f"HistogramBinning: num_bins must be at least 1, got {self.num_bins}")
        if self.target not in ("classes", "top"):
            raise ValueError(f'HistogramBinning: target must be "classes" or "top", got {self.target!r}')
        if self.blend is not None and not 0 <= self.blend <= 1:
            raise ValueError(f"HistogramBinning: blend must lie in [0, 1], or be None, got {self.blend}")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, calibrated."""
        rows = class_rows(predictor, task, step="HistogramBinning()")
        top = self.target == "top"
        probs, hits = top_against_rest(rows) if top else one_against_rest(rows)
        binned = [histogram(p, hit, num_bins=self.num_bins) for p, hit in zip(probs, hits, strict=True)]
        knots, values = padded(binned)
        blend = 1 / (len(rows.log_probs) + 1) if self.blend is None else self.blend
        return Curves(predictor, knots, values, True, top, blend, task.calibration.digest)
