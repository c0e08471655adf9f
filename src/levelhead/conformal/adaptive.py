"""Adaptive conformal inference: an error rate that learns from its own errors, for streams that drift."""

from dataclasses import dataclass

from levelhead.conformal.ranks import check_alpha


@dataclass
class AdaptiveAlpha:
    """alpha_{t+1} = alpha_t + rate (alpha - err_t): after a miss the next sets grow, after a hit they shrink.

    Use it beside thresholds of one's own: `level` is the error rate of the next set (`threshold(scores, level)`; at or
    below 0 the set is everything, at or above 1 it is empty), and `update` learns whether it missed. For any stream at
    all, |mean err - alpha| <= (max(alpha, 1 - alpha) + rate) / (rate t) after t steps.

    Gibbs & Candes, arXiv 2106.00170.
    """

    alpha: float = 0.1
    rate: float = 0.005
    now: float | None = None
    steps: int = 0
    errors: int = 0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if not self.rate > 0:
            raise ValueError(f"AdaptiveAlpha: rate must be positive, got {self.rate}")
        self.now = self.alpha if self.now is None else self.now

    @property
    def level(self) -> float:
        """The error rate of the next set; outside [0, 1] it stands for everything and nothing."""
        assert self.now is not None
        return self.now

    def update(self, missed: bool) -> float:
        """Learn whether the last set missed its label; the new level."""
        self.steps += 1
        self.errors += missed
        self.now = self.level + self.rate * (self.alpha - missed)
        return self.now

    @property
    def error_rate(self) -> float:
        """The share of sets that missed so far; NaN before the first."""
        return self.errors / self.steps if self.steps else float("nan")
