"""Values over orders of magnitude: learning rates, penalties, dropout rates."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LogUniform:
    """value = exp(u log low + (1 - u) log high), u uniform on [0, 1), written at `path` of a recipe.

    path       such as "sampler.lr" or "surgery.dropout.p"; several, with commas between, get the same value.
    low, high  0 < low <= high. Raises ValueError otherwise.
    """

    path: str = "sampler.lr"
    low: float = 1e-4
    high: float = 1e-1

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < math.inf:
            raise ValueError(f"LogUniform: wants 0 < low <= high, got low={self.low}, high={self.high}")

    def draw(self, generator: torch.Generator) -> float:
        """One value."""
        u = float(torch.rand((), generator=generator, dtype=torch.float64))
        return min(max(math.exp(math.log(self.low) * u + math.log(self.high) * (1 - u)), self.low), self.high)
