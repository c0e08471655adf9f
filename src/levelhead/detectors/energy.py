"""The energy score: the log-partition of the logits, which softmax throws away."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from levelhead.detectors import _logits
from levelhead.detectors._fit import Detector, Learned
from levelhead.detectors._look import Look
from levelhead.types import Reference


@dataclass(frozen=True)
class Energy(Detector):
    """-T logsumexp_k(l_k / T) of a member's raw logits; the mean over members, weighted as in the mixture.

    Post-hoc steps (temperature, calibration) do not enter: they act on probabilities, which know no energy.
    Liu et al., arXiv 2010.03759.
    """

    reference: ClassVar = Reference(
        "Liu et al.", 2020, arxiv="2010.03759", title="Energy-based Out-of-distribution Detection"
    )
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"Energy: temperature must be positive, got {self.temperature}")

    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """See `Detector.score`."""
        logits = look.logits(wanted_by="Energy()")
        return look.averaged([_logits.energy(one, self.temperature) for one in logits])
