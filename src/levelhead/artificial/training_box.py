"""Artificial inputs from the smallest box around the training inputs."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from levelhead.artificial._draw import Draw, in_box


@dataclass(frozen=True)
class TrainingBox:
    """Points uniform between the smallest and the largest training value of every feature, `margin` of the range wider.

    With many features nearly all of this box is far from the data; then `jitter` and `mix_up` look closer.
    """

    margin: float = 0.05

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise ValueError(f"TrainingBox: margin must not be negative, got {self.margin}")

    def __call__(self, rows: Float[Tensor, "row *input"]) -> Draw:
        """Draws of points shaped like the training inputs `rows`."""
        low, high = rows.amin(0), rows.amax(0)
        apart = self.margin * (high - low)
        return in_box(low - apart, high + apart)
