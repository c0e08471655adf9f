"""Mahalanobis distance to the nearest class in feature space."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from levelhead.detectors._fit import Detector, Learned
from levelhead.detectors._look import Look, Reading, seen
from levelhead.detectors._moments import Moments, factor, nearest, whitened
from levelhead.types import Reference


@dataclass(frozen=True)
class Mahalanobis(Detector):
    """min_k (z - mu_k)' S^-1 (z - mu_k), with z a member's features, S their covariance about the classes' means.

    S is the scatter over all training rows divided by their number, shrunk to (1 - s) S + s tr(S) / d I. Features are
    those behind the last stage, without the paper's input noise and other layers. Members have statistics of their
    own; the score is the mean of theirs, weighted as in the mixture. In regression all rows are one class.

    shrinkage  s in [0, 1]; with the default only directions a millionth as wide as the mean one are held back.

    float64, one pass; >= 0, and chi-square with d degrees of freedom where one class is Gaussian.
    Lee et al., arXiv 1807.03888.
    """

    reference: ClassVar = Reference(
        "Lee et al.",
        2018,
        arxiv="1807.03888",
        title="A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks",
    )
    shrinkage: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 <= self.shrinkage <= 1:
            raise ValueError(f"Mahalanobis: shrinkage must lie in [0, 1], got {self.shrinkage}")

    def learner(self, num_classes: int) -> "ClassMeans":
        """See `Detector.learner`."""
        return ClassMeans(num_classes, self.shrinkage)

    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """See `Detector.score`."""
        readings = seen(look.readings, wanted_by="Mahalanobis()")
        return look.averaged([nearest(r.features, **own) for r, own in zip(readings, learned, strict=True)])


class ClassMeans:
    """Gathers the classes' means and the scatter about them."""

    def __init__(self, num_classes: int, shrinkage: float) -> None:
        self.moments = Moments(num_classes)
        self.shrinkage = shrinkage

    def add(self, reading: Reading, y: Int[Tensor, " row"]) -> None:
        """See `Learner.add`."""
        self.moments.add(reading.features, y)

    def value(self) -> dict[str, Tensor]:
        """lower (feature, feature): S = L L'; centres (class, feature): L^-1 mu_k of the classes that have rows."""
        covariance = self.moments.scatter / self.moments.count.sum()
        lower = factor(covariance, self.shrinkage, wanted_by="Mahalanobis()")
        return {"lower": lower, "centres": whitened(lower, self.moments.mean[self.moments.present])}
