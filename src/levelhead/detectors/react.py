"""ReAct: activations are clipped at what is usual in training, and the logits that remain are scored."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from levelhead.detectors import _logits
from levelhead.detectors._fit import Detector, Learned
from levelhead.detectors._look import Look, Reading, seen
from levelhead.detectors._moments import Sample
from levelhead.types import CannotCompose, Reference

ROWS = 10_000  # training rows behind the percentile


@dataclass(frozen=True)
class ReAct(Detector):
    """The energy of the head's logits on min(z, t), with t the percentile of all activations in training.

    percentile   of the activations of a member on 10,000 training rows, drawn once, all features together.
    logit_score  of the clipped features' logits: "energy", "max_logit", "max_probability" or "entropy".

    Any head will do: it is run on the clipped features. The mean over members, weighted as in the mixture.
    Sun et al., arXiv 2111.12797.
    """

    reference: ClassVar = Reference(
        "Sun et al.", 2021, arxiv="2111.12797", title="ReAct: Out-of-distribution Detection With Rectified Activations"
    )
    percentile: float = 90.0
    logit_score: str = "energy"

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise ValueError(f"ReAct: percentile must lie in (0, 100], got {self.percentile}")
        if self.logit_score not in _logits.NAMES:
            raise ValueError(f"ReAct: logit_score must be one of {_logits.NAMES}, got {self.logit_score!r}")

    def learner(self, num_classes: int) -> "Percentile":
        """See `Detector.learner`."""
        if num_classes < 2:
            raise CannotCompose("ReAct() scores logits of classes, and this task regresses. Use Mahalanobis() or KNN()")
        return Percentile(self.percentile)

    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """See `Detector.score`."""
        found = []
        for reading, own in zip(seen(look.readings, wanted_by="ReAct()"), learned, strict=True):
            clipped = reading.features.clamp_max(float(own["threshold"]))
            found.append(_logits.score(self.logit_score, reading.head(clipped)))
        return look.averaged(found)


class Percentile:
    """Keeps activations of some training rows."""

    def __init__(self, percentile: float) -> None:
        self.percentile = percentile
        self.sample = Sample(ROWS, seed=0)

    def add(self, reading: Reading, y: Int[Tensor, " row"]) -> None:
        """See `Learner.add`."""
        self.sample.add(reading.features)

    def value(self) -> dict[str, Tensor]:
        """threshold (): between order statistics linearly, as NumPy's percentile."""
        values = self.sample.value()[0].double().flatten().sort().values  # torch.quantile refuses 16 million values
        place = self.percentile / 100 * (len(values) - 1)
        low = int(place)
        high = min(low + 1, len(values) - 1)
        return {"threshold": values[low] + (place - low) * (values[high] - values[low])}
