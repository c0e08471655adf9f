"""Values of one order of magnitude: shares, momenta."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Uniform:
    """value = low + u (high - low), u uniform on [0, 1), written at `path` of a recipe.

    path       such as "sampler.momentum"; several, with commas between, get the same value.
    low, high  low <= high. Raises ValueError otherwise.
    """

    path: str = "sampler.momentum"
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not -math.inf < self.low <= self.high < math.inf:
            raise ValueError(f"Uniform: wants finite low <= high, got low={self.low}, high={self.high}")

    def draw(self, generator: torch.Generator) -> float:
        """One value."""
        return self.low + float(torch.rand((), generator=generator, dtype=torch.float64)) * (self.high - self.low)
