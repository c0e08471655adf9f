"""Artificial inputs a little off the training inputs, by as much as these are apart."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.artificial._draw import Draw, places

MOST = 2000  # training rows whose neighbours are looked for; more are represented by the first ones


@dataclass(frozen=True)
class Jitter:
    """x_i + scale d_i s u / sqrt(features): x_i a training input, u standard normal, s the features' deviations.

    d_i is the distance from x_i to its k-th nearest other training input in units of s, k = `neighbours`. So points lie
    beside the data whatever the dimension, and farther out where the data are scarce.
    """

    scale: float = 1.0
    neighbours: int = 1

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"Jitter: scale must be positive, got {self.scale}")
        if self.neighbours < 1:
            raise ValueError(f"Jitter: neighbours must be at least 1, got {self.neighbours}")

    def __call__(self, rows: Float[Tensor, "row *input"]) -> Draw:
        """Draws of points shaped like the training inputs `rows`."""
        rows = rows[:MOST]
        flat = rearrange(rows, "row ... -> row (...)")
        spread = flat.std(0, correction=0)
        spread = torch.where(spread > 0, spread, torch.ones_like(spread))
        apart = torch.cdist(flat / spread, flat / spread).sort(-1).values
        reach = apart[:, min(self.neighbours, len(rows) - 1)]  # the nearest of all is the row itself

        def draw(num: int) -> Float[Tensor, "point *input"]:
            chosen = places(rows, num)
            noise = torch.randn(num, flat.shape[1], dtype=rows.dtype, device=rows.device) * spread
            size = self.scale * reach[chosen, None] / flat.shape[1] ** 0.5
            return (flat[chosen] + size * noise).reshape(num, *rows.shape[1:])

        return draw
