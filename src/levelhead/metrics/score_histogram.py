"""Ranking metrics of scores too many to keep, such as one a pixel: counts in 65,536 bins instead of a sort."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from levelhead.metrics.streaming import Totals
from levelhead.types import Scalar

BINS = 2**16


class Detection(NamedTuple):
    """What `auroc`, `average_precision` and `fpr_at_recall` give, up to ties within a bin."""

    auroc: Scalar
    average_precision: Scalar
    fpr: Scalar


class ScoreHistogram(Totals):
    """AUROC, average precision and false positive rate of scores in [low, high], streamed.

    Scores in the same bin count as tied, so the AUROC is off by at most half the share of such pairs; scores outside
    count at the ends. Confidences near one want their logarithm's range, such as log p in [-20, 0].
    """

    def __init__(self, low: float = 0.0, high: float = 1.0, *, bins: int = BINS) -> None:
        if not low < high or bins < 2:
            raise ValueError(f"low, high, bins: want low < high and at least 2 bins, got {low}, {high}, {bins}")
        self.low, self.high, self.bins = low, high, bins
        self.totals = {name: torch.zeros(bins, dtype=torch.float64) for name in ("positive", "negative")}

    def settings(self) -> tuple[object, ...]:
        """See `Totals`."""
        return (self.low, self.high, self.bins)

    def update(self, score: Float[Tensor, "*batch"], positive: Bool[Tensor, "*batch"]) -> None:
        """Add scores; higher means more positive. Raises ValueError for NaN."""
        if bool(score.isnan().any()):
            raise ValueError("score: wants no NaN")
        place = (score.double().clamp(self.low, self.high) - self.low) / (self.high - self.low) * self.bins
        index = place.long().clamp_max(self.bins - 1).reshape(-1)
        zero = torch.zeros(self.bins, dtype=torch.float64, device=score.device)
        weight = positive.reshape(-1).double()
        self._add(positive=zero.index_add(0, index, weight), negative=zero.index_add(0, index, 1 - weight))

    def compute(self, *, recall: float = 0.95) -> Detection:
        """The metrics of all scores so far; `fpr` is where `recall` of the positives are found."""
        if not 0 < recall <= 1:
            raise ValueError(f"recall: wants a share in (0, 1], got {recall}")
        positive, negative = self.totals["positive"].flip(0), self.totals["negative"].flip(0)
        true, false = positive.cumsum(0), negative.cumsum(0)
        if not (true[-1] > 0 and false[-1] > 0):
            raise ValueError(f"positive: wants scores of both kinds, got {int(true[-1])} and {int(false[-1])}")
        won = (positive * (false[-1] - false + negative / 2)).sum() / (true[-1] * false[-1])
        precision = torch.where(true > 0, true / (true + false).clamp_min(1), 0.0)
        reached = true >= recall * true[-1] - 1e-9
        return Detection(won, (positive / true[-1] * precision).sum(), (false / false[-1])[reached].amin())
