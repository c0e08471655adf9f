"""Relative Mahalanobis distance: how much nearer a row is to its class than to the training rows as a whole."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from levelhead.detectors._fit import Detector, Learned
from levelhead.detectors._look import Look, Reading, seen
from levelhead.detectors._moments import Moments, factor, nearest, pooled, whitened
from levelhead.types import CannotCompose, Reference


@dataclass(frozen=True)
class RelativeMahalanobis(Detector):
    """min_k (m_k - m_0): m_k the squared Mahalanobis distance to class k, m_0 that to all rows as one Gaussian.

    m_k as in `Mahalanobis`; m_0 has the mean and covariance of all rows, so what no class varies in counts for
    nothing. Shrinkage acts on both covariances. Negative inside. Needs classes: with one class it would be 0.

    Ren et al., arXiv 2106.09022.
    """

    reference: ClassVar = Reference(
        "Ren et al.",
        2021,
        arxiv="2106.09022",
        title="A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
    )
    shrinkage: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 <= self.shrinkage <= 1:
            raise ValueError(f"RelativeMahalanobis: shrinkage must lie in [0, 1], got {self.shrinkage}")

    def learner(self, num_classes: int) -> "TwoGaussians":
        """See `Detector.learner`."""
        if num_classes < 2:
            raise CannotCompose(
                "RelativeMahalanobis() compares classes with all rows, and this task regresses: its score would be 0 "
                "everywhere. Use Mahalanobis() or KNN()"
            )
        return TwoGaussians(num_classes, self.shrinkage)

    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """See `Detector.score`."""
        readings = seen(look.readings, wanted_by="RelativeMahalanobis()")
        return look.averaged(
            [
                nearest(r.features, own["lower"], own["centres"])
                - nearest(r.features, own["background_lower"], own["background_centres"])
                for r, own in zip(readings, learned, strict=True)
            ]
        )


class TwoGaussians:
    """Gathers the classes' means and both scatters."""

    def __init__(self, num_classes: int, shrinkage: float) -> None:
        self.moments = Moments(num_classes)
        self.shrinkage = shrinkage

    def add(self, reading: Reading, y: Int[Tensor, " row"]) -> None:
        """See `Learner.add`."""
        self.moments.add(reading.features, y)

    def value(self) -> dict[str, Tensor]:
        """Factor and whitened centres of the classes, and of all rows."""
        found: dict[str, Tensor] = {}
        everything = pooled(self.moments)
        within = self.moments.scatter / self.moments.count.sum()
        sides = (
            ("", within, self.moments.mean[self.moments.present]),
            ("background_", everything.covariance, everything.mean[None]),
        )
        for name, covariance, means in sides:
            lower = factor(covariance, self.shrinkage, wanted_by="RelativeMahalanobis()")
            found |= {f"{name}lower": lower, f"{name}centres": whitened(lower, means)}
        return found
