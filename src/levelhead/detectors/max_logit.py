"""The largest logit, before softmax divides it by the others."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from levelhead.detectors import _logits
from levelhead.detectors._fit import Detector, Learned
from levelhead.detectors._look import Look
from levelhead.types import Reference


@dataclass(frozen=True)
class MaxLogit(Detector):
    """-max_k l_k of a member's raw logits; the mean over members, weighted as in the mixture.

    Hendrycks et al., arXiv 1911.11132.
    """

    reference: ClassVar = Reference(
        "Hendrycks et al.",
        2022,
        arxiv="1911.11132",
        title="Scaling Out-of-Distribution Detection for Real-World Settings",
    )

    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """See `Detector.score`."""
        return look.averaged([_logits.max_logit(one) for one in look.logits(wanted_by="MaxLogit()")])
