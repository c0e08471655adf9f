"""Artificial inputs from a box that is known beforehand: the domain of an experiment."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from levelhead.artificial._draw import Draw, in_box


@dataclass(frozen=True)
class Box:
    """Points uniform in [low - margin (high - low), high + margin (high - low)], in the inputs' own units.

    low, high  one number for all features, or one each. Raises ValueError unless low < high.
    """

    low: tuple[float, ...] = (-1.0,)
    high: tuple[float, ...] = (1.0,)
    margin: float = 0.05

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or any(a >= b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"Box: wants low < high in every feature, got {self.low} and {self.high}")
        if self.margin < 0:
            raise ValueError(f"Box: margin must not be negative, got {self.margin}")

    def __call__(self, rows: Float[Tensor, "row *input"]) -> Draw:
        """Draws of points shaped like the training inputs `rows`."""
        shape = rows.shape[1:]
        if len(self.low) not in (1, shape[0]):
            raise ValueError(f"Box: {len(self.low)} bounds for inputs of shape {tuple(shape)}; give one a feature")
        low, high = (rows.new_tensor(side).reshape(-1, *(1,) * (len(shape) - 1)) for side in (self.low, self.high))
        apart = self.margin * (high - low)
        return in_box((low - apart).expand(shape), (high + apart).expand(shape))
