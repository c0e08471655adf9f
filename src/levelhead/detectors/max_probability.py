"""Maximum softmax probability: the baseline that every other score is measured against."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from levelhead.detectors import _logits
from levelhead.detectors._fit import Detector, Learned
from levelhead.detectors._look import Look
from levelhead.types import Reference


@dataclass(frozen=True)
class MaxProbability(Detector):
    """1 - max_k p(k | x) of the deployed mixture, in [0, 1 - 1 / num_classes]. Hendrycks & Gimpel, arXiv 1610.02136."""

    reference: ClassVar = Reference(
        "Hendrycks & Gimpel",
        2017,
        arxiv="1610.02136",
        title="A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks",
    )

    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """See `Detector.score`."""
        return _logits.max_probability(look.classes(wanted_by="MaxProbability()").log_probs)
