"""From the raw output of a side network to a standard deviation."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Readout:
    """sigma = c phi(r),  phi(r) = l_max (1 - exp(-(max(0, r) + l_min) / l_max)).

    phi rises from phi(r <= 0) = l_max (1 - exp(-l_min / l_max)), about l_min, towards l_max, which it does not reach;
    its slope at 0+ is exp(-l_min / l_max). All in standardised target units. Training acts on r: phi is for prediction.

    shape  "cut" takes clip(r, l_min, l_max) instead, piecewise linear.
    c      factor on the width of the bounds, the part that is calibrated.

    Raises ValueError unless 0 < l_min <= l_max and c > 0.
    """

    l_min: float = 1e-3
    l_max: float = 2.0
    c: float = 1.0
    shape: Literal["smooth", "cut"] = "smooth"

    def __post_init__(self) -> None:
        if not 0 < self.l_min <= self.l_max:
            raise ValueError(f"Readout: wants 0 < l_min <= l_max, got {self.l_min} and {self.l_max}")
        if not self.c > 0:
            raise ValueError(f"Readout: c must be positive, got {self.c}")
        if self.shape not in ("smooth", "cut"):
            raise ValueError(f"Readout: shape must be 'smooth' or 'cut', got {self.shape!r}")

    def __call__(self, raw: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch target"]:
        """Standard deviations, positive, in standardised target units."""
        if self.shape == "cut":
            return self.c * raw.clamp(self.l_min, self.l_max)
        return self.c * self.l_max * -((-(raw.clamp_min(0.0) + self.l_min) / self.l_max).expm1())
