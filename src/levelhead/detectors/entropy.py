"""Predictive entropy: how spread the deployed belief is over the classes."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from levelhead.detectors._fit import Detector, Learned
from levelhead.detectors._look import Look
from levelhead.types import Reference


@dataclass(frozen=True)
class Entropy(Detector):
    """-sum_k p(k | x) log p(k | x) of the deployed mixture, nats, in [0, log num_classes].

    As Lakshminarayanan et al., arXiv 1612.01474, score ensembles.
    """

    reference: ClassVar = Reference(
        "Lakshminarayanan et al.",
        2017,
        arxiv="1612.01474",
        title="Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
    )

    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """See `Detector.score`."""
        return look.classes(wanted_by="Entropy()").total()
