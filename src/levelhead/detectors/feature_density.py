"""Density of the features: a Gaussian for each class, fitted after training (the epistemic half of DDU)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.detectors._fit import Detector, Learned
from levelhead.detectors._look import Look, Reading, seen
from levelhead.detectors._moments import Moments, factor, whitened
from levelhead.predictive import LOG_TWO_PI, along_members
from levelhead.types import CannotCompose, Reference

KINDS = ("full", "tied", "diagonal")
MOST_BYTES = 4 << 30  # of all classes' matrices of one member


@dataclass(frozen=True)
class FeatureDensity(Detector):
    """-log sum_k pi_k Normal(z; mu_k, S_k) of a member's features, nats; the mean over members, weighted.

    covariance  "full": S_k of each class, divisor N_k - 1. "tied": one for all, as in `Mahalanobis`. "diagonal": the
                variances of each class alone.
    per_class   False: one Gaussian for all rows, as for regression.
    priors      pi_k are the classes' shares of the training rows; False: equal, as in the authors' code.
    shrinkage   s in (1 - s) S_k + s tr(S_k) / d I. The authors' code instead adds the smallest number to the diagonal
                that lets Cholesky pass.

    DDU trains with spectral normalisation (`spectral_norm`) for such densities to mean something; the score takes any
    network. Mukhoti et al., arXiv 2102.11582.
    """

    reference: ClassVar = Reference(
        "Mukhoti et al.", 2023, arxiv="2102.11582", title="Deep Deterministic Uncertainty: A New Simple Baseline"
    )
    covariance: str = "full"
    per_class: bool = True
    priors: bool = True
    shrinkage: float = 1e-6

    def __post_init__(self) -> None:
        if self.covariance not in KINDS:
            raise ValueError(f"FeatureDensity: covariance must be one of {KINDS}, got {self.covariance!r}")
        if not 0 <= self.shrinkage <= 1:
            raise ValueError(f"FeatureDensity: shrinkage must lie in [0, 1], got {self.shrinkage}")

    def learner(self, num_classes: int) -> "ClassGaussians":
        """See `Detector.learner`."""
        return ClassGaussians(num_classes if self.per_class else 1, self)

    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """See `Detector.score`."""
        readings = seen(look.readings, wanted_by="FeatureDensity()")
        return look.averaged([-log_density(r.features, **own) for r, own in zip(readings, learned, strict=True)])


class ClassGaussians:
    """Gathers the classes' moments."""

    def __init__(self, num_classes: int, spec: FeatureDensity) -> None:
        self.moments = Moments(num_classes, spec.covariance)
        self.spec = spec

    def add(self, reading: Reading, y: Int[Tensor, " row"]) -> None:
        """See `Learner.add`."""
        width, classes = reading.features.shape[-1], self.moments.num_classes
        if self.spec.covariance == "full" and 8 * classes * width**2 > MOST_BYTES:
            raise CannotCompose(
                f"FeatureDensity() would hold {classes} matrices of {width} x {width}, more than "
                f"{MOST_BYTES >> 30} GiB. Write covariance='tied' or covariance='diagonal'"
            )
        self.moments.add(reading.features, y if classes > 1 else torch.zeros_like(y))

    def value(self) -> dict[str, Tensor]:
        """log_prior (class,), mean (class, feature), and factor (class or 1, feature, feature): lower, S_k = L L'."""
        moments, present = self.moments, self.moments.present
        count = moments.count[present]
        log_prior = (count / count.sum()).log() if self.spec.priors else -count.new_full(count.shape, len(count)).log()
        if self.spec.covariance == "tied":
            covariance = (moments.scatter / count.sum())[None]
        else:
            divisor = (count - 1).clamp_min(1)
            scatter = moments.scatter[present]
            covariance = scatter / along_members(divisor, scatter.ndim)
        if self.spec.covariance == "diagonal":
            covariance = covariance.diag_embed()
        lower = factor(covariance, self.spec.shrinkage, wanted_by="FeatureDensity()")
        return {"log_prior": log_prior, "mean": moments.mean[present], "factor": lower}


def log_density(
    z: Float[Tensor, "*batch feature"],
    log_prior: Float[Tensor, " class"],
    mean: Float[Tensor, "class feature"],
    factor: Float[Tensor, "matrix feature feature"],
) -> Float[Tensor, "*batch"]:
    """log sum_k pi_k Normal(z; mu_k, L_k L_k'), class by class: memory stays that of one class."""
    rows = z.flatten(0, -2).double()
    logs = []
    for label, (prior, centre) in enumerate(zip(log_prior, mean, strict=True)):
        lower = factor[min(label, len(factor) - 1)]
        distance = whitened(lower, rows - centre).square().sum(-1)
        log_det = 2 * lower.diagonal().log().sum()
        logs.append(prior - 0.5 * (distance + log_det + LOG_TWO_PI * z.shape[-1]))
    return torch.logsumexp(torch.stack(logs), dim=0).unflatten(0, z.shape[:-1])
