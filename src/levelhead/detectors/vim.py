"""ViM: what is left of the features outside their principal subspace becomes one more logit."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.detectors import _logits
from levelhead.detectors._fit import Detector, Learned
from levelhead.detectors._look import Look, Reading, seen
from levelhead.detectors._moments import Sample
from levelhead.types import CannotCompose, Reference

ROWS = 10_000  # training rows behind alpha
TOLERANCE = 1e-3  # of a head that is affine


@dataclass(frozen=True)
class ViM(Detector):
    """alpha |R'(z - o)| - logsumexp(l), with o = -W^+ b the features whose logits are 0.

    R is an orthonormal basis of the space beyond the `dim` leading eigenvectors of the mean of (z - o)(z - o)' over
    the training rows; alpha = mean max l / mean |R'(z - o)| matches the virtual logit to the real ones (over 10,000
    training rows, drawn once). With nothing left beyond `dim` it is the energy.

    dim  None: 1000 of at least 2048 features, 512 of at least 768, else half of them.

    Asks for a head that is affine in the features (W and b are measured, so any kind of layer will do); raises
    CannotCompose for others. Members have statistics of their own; the score is their mean, weighted.
    Wang et al., arXiv 2203.10807.
    """

    reference: ClassVar = Reference(
        "Wang et al.", 2022, arxiv="2203.10807", title="ViM: Out-Of-Distribution with Virtual-logit Matching"
    )
    dim: int | None = None

    def __post_init__(self) -> None:
        if self.dim is not None and self.dim < 1:
            raise ValueError(
                f"ViM: dim must be at least 1, or None to choose by the number of features, got {self.dim}"
            )

    def learner(self, num_classes: int) -> "Residual":
        """See `Detector.learner`."""
        if num_classes < 2:
            raise CannotCompose(
                "ViM() adds a logit to those of classes, and this task regresses. Use Mahalanobis() or KNN()"
            )
        return Residual(self.dim)

    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """See `Detector.score`."""
        readings = seen(look.readings, wanted_by="ViM()")
        return look.averaged([virtual(r, **own) for r, own in zip(readings, learned, strict=True)])


class Residual:
    """Gathers the second moment of the features about o, and rows for alpha."""

    def __init__(self, dim: int | None) -> None:
        self.dim = dim
        self.sample = Sample(ROWS, seed=0)
        self.count = 0
        self.origin: Tensor = torch.empty(0)
        self.second: Tensor = torch.empty(0)

    def add(self, reading: Reading, y: Int[Tensor, " row"]) -> None:
        """See `Learner.add`."""
        if self.count == 0:
            weight, bias = affine(reading)
            self.origin = -torch.linalg.pinv(weight) @ bias
            self.second = torch.zeros_like(weight.mT @ weight)
        centred = reading.features.double() - self.origin
        self.second += centred.mT @ centred
        self.count += len(centred)
        self.sample.add(reading.features, reading.outputs.amax(-1, keepdim=True))

    def value(self) -> dict[str, Tensor]:
        """origin (feature,), basis (feature, residual) of the residual space, alpha ()."""
        width = len(self.origin)
        dim = default_dim(width) if self.dim is None else min(self.dim, width)
        basis = torch.linalg.eigh(self.second / self.count).eigenvectors[:, : width - dim]  # eigenvalues ascend
        features, best = self.sample.value()
        norms = ((features.double() - self.origin) @ basis).norm(dim=-1).mean()
        alpha = best.double().mean() / norms if norms > 0 else torch.zeros_like(norms)
        return {"origin": self.origin, "basis": basis.contiguous(), "alpha": alpha}


def default_dim(width: int) -> int:
    """The paper's size of the principal subspace."""
    return 1000 if width >= 2048 else 512 if width >= 768 else width // 2


def affine(reading: Reading) -> tuple[Float[Tensor, "output feature"], Float[Tensor, " output"]]:
    """W and b of a head, measured at zero and at the unit vectors. Raises CannotCompose where it is not affine."""
    width = reading.features.shape[-1]
    probes = torch.cat([reading.features.new_zeros(1, width), torch.eye(width).to(reading.features)])
    values = reading.head(probes).double()
    bias, weight = values[0], (values[1:] - values[0]).mT
    expected = reading.features.double() @ weight.mT + bias
    scale = reading.outputs.double().abs().amax().clamp_min(1.0)
    if float((expected - reading.outputs).abs().amax() / scale) > TOLERANCE:
        raise CannotCompose(
            "ViM() asks for logits that are affine in the features, and this head is not (random features, cosine or "
            "normalising layers). Leave the head as it is, or use Mahalanobis(), KNN() or ReAct()"
        )
    return weight, bias


def virtual(
    reading: Reading,
    origin: Float[Tensor, " feature"],
    basis: Float[Tensor, "feature residual"],
    alpha: Float[Tensor, ""],
) -> Float[Tensor, "*batch"]:
    """The virtual logit minus the log-partition of the real ones."""
    residual = ((reading.features.double() - origin) @ basis).norm(dim=-1)
    return alpha * residual + _logits.energy(reading.outputs.double())
