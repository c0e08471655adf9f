"""Mutual information between label and member: what the members disagree on."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from levelhead.detectors._fit import Detector, Learned
from levelhead.detectors._look import Look
from levelhead.types import Reference


@dataclass(frozen=True)
class MutualInformation(Detector):
    """H(sum_m w_m p_m) - sum_m w_m H(p_m), nats, in [0, log min(num_members, num_classes)]; 0 for one member.

    Houlsby et al., arXiv 1112.5745; for networks Gal et al., arXiv 1703.02910.
    """

    reference: ClassVar = Reference(
        "Houlsby et al.",
        2011,
        arxiv="1112.5745",
        title="Bayesian Active Learning for Classification and Preference Learning",
    )

    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """See `Detector.score`."""
        return look.classes(wanted_by="MutualInformation()").epistemic()
