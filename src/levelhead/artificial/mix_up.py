"""Artificial inputs between pairs of training inputs, and a little beyond."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.artificial._draw import Draw, some_of


@dataclass(frozen=True)
class MixUp:
    """x_i + t (x_j - x_i), i and j drawn from the training rows, t uniform in [-beyond, 1 + beyond].

    Points stay in the span of the data: for inputs whose box is nearly empty.
    """

    beyond: float = 0.25

    def __post_init__(self) -> None:
        if self.beyond < 0:
            raise ValueError(f"MixUp: beyond must not be negative, got {self.beyond}")

    def __call__(self, rows: Float[Tensor, "row *input"]) -> Draw:
        """Draws of points shaped like the training inputs `rows`."""

        def draw(num: int) -> Float[Tensor, "point *input"]:
            t = torch.rand(num, *(1,) * (rows.ndim - 1), dtype=rows.dtype, device=rows.device)
            t = t * (1 + 2 * self.beyond) - self.beyond
            first = some_of(rows, num)
            return first + t * (some_of(rows, num) - first)

        return draw
