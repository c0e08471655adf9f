"""Square attack: random squares of colour, kept where they help; it needs no gradient."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.attacks._ball import Norm, along, unit
from levelhead.attacks._bumps import TILES, first_change, moved_bump
from levelhead.attacks._victim import Victim, Worst, check_counts
from levelhead.attacks._within_ball import WithinBall
from levelhead.types import CannotCompose, Reference

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
AT_ONCE = 64  # queries whose random numbers are drawn together: a call a row and query would cost more than the network


@dataclass(frozen=True)
class Square(WithinBall):
    """x' <- Pi(x' + a random square, +-2 eps in each channel) where that raises the margin. arXiv 1912.00049.

    The first point is x with vertical stripes of +-eps. A square has the side round(sqrt(p height width)); its share p
    of the image is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries. A row rests when the
    predictor errs on it: margin = max_{k != y} log p_k - log p_y > 0.

    queries  forward passes, the first point's included.
    p        share of the first squares.
    norm     "linf"; "l2": the first point has a bump in each of 5 x 5 tiles, and a query adds a bump in one window and
             gives it the length of another, which it empties; sides are odd, 3 at least.
    draws    calls of a stochastic predictor that a margin is the mean of.

    Images x (batch, channel, height, width), labels y (batch,); ValueError for anything else. Works for predictors
    without a gradient. Raises CannotCompose for beliefs that are not about one label a row.
    """

    reference: ClassVar = Reference(
        "Andriushchenko, Croce, Flammarion & Hein",
        2020,
        arxiv="1912.00049",
        title="Square attack: a query-efficient black-box adversarial attack via random search",
    )
    by_gradient: ClassVar = False
    eps: float = 8 / 255
    queries: int = 5000
    p: float = 0.8
    norm: Norm = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    draws: int = 1

    def __post_init__(self) -> None:
        self.ball.check("Square")
        check_counts("Square", queries=self.queries, draws=self.draws)
        if not 0 < self.p <= 1:
            raise ValueError(f"Square: p must be a share in (0, 1], got {self.p}")

    def on(self, victim: Victim) -> Float[Tensor, "batch *input"]:
        """See `Attack`."""
        if victim.x.ndim != 4:
            raise CannotCompose(f"Square wants images (batch, channel, height, width), got {tuple(victim.x.shape)}")
        worst, rows = Worst(victim.x), victim.rows
        worst.keep(rows, victim.x, victim.margin(victim.x, rows, draws=self.draws))
        rows = worst.standing(rows)
        if not len(rows):
            return worst.x
        moved = self._first(victim, rows)
        margin = victim.margin(moved, rows, draws=self.draws)
        numbers = victim.x.new_empty(len(rows), 0, (2 if self.norm == "linf" else 5) + victim.x.shape[1])
        for query in range(1, self.queries + 1):
            worst.keep(rows, moved, margin)
            left = worst.margin[rows] <= 0
            rows, moved, margin, numbers = (t[left] for t in (rows, moved, margin, numbers))
            if not len(rows) or query == self.queries:
                break
            if not numbers.shape[1]:
                numbers = victim.streams.uniform(rows, like=victim.x.new_empty(len(rows), AT_ONCE, numbers.shape[2]))
            now, numbers = numbers[:, 0], numbers[:, 1:]
            tried = self._next(moved, victim.x[rows], now, self.side(query, *victim.x.shape[2:]))
            found = victim.margin(tried, rows, draws=self.draws)
            better = found > margin
            moved = torch.where(along(better, moved), tried, moved)
            margin = torch.where(better, found, margin)
        return worst.x

    def side(self, query: int, height: int, width: int) -> int:
        """Of the squares of the `query`-th pass."""
        share = self.p / 2 ** sum(query > after for after in HALVED_AFTER)
        side = round(math.sqrt(share * height * width))
        if self.norm == "l2":
            largest = min(height, width)
            return min(max(side, 3) | 1, largest - 1 + largest % 2)
        return min(max(side, 1), height, width)

    def _first(self, victim: Victim, rows: Tensor) -> Tensor:
        x = victim.x[rows]
        if self.norm == "l2":
            numbers = victim.streams.uniform(rows, like=x.new_empty(len(x), TILES**2, 1 + x.shape[1]))
            return self.ball.project(x + self.eps * unit(first_change(x, numbers), "l2"), x)
        signs = (victim.streams.uniform(rows, like=x[:, :, :1, :]) < 0.5).to(x) * 2 - 1
        return self.ball.project(x + self.eps * signs, x)

    def _next(self, moved: Tensor, x: Tensor, numbers: Tensor, side: int) -> Tensor:
        """numbers (row, 2 + channel) in [0, 1): where the square is, and its signs; (row, 5 + channel) for "l2"."""
        if self.norm == "l2":
            return self.ball.project(x + moved_bump(moved - x, numbers, side=side, eps=self.eps), x)
        height, width = x.shape[2:]
        top = (numbers[:, 0] * (height - side + 1)).long()[:, None]
        left = (numbers[:, 1] * (width - side + 1)).long()[:, None]
        down, across = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        inside = ((down >= top) & (down < top + side))[:, :, None] & ((across >= left) & (across < left + side))[
            :, None
        ]
        signs = (numbers[:, 2:] < 0.5).to(x) * 2 - 1
        return self.ball.project(moved + 2 * self.eps * inside[:, None] * signs[:, :, None, None], x)
