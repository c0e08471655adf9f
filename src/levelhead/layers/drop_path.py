"""Stochastic depth: a residual branch that is left out at random while training."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class DropPath(nn.Module):
    """0 with probability p, x / (1 - p) otherwise, one draw a row; x itself outside of training.

    It stands at the end of a branch, before the sum: E[output] is the branch's own. A method of training alone: passes
    at prediction never draw, also where a network is asked for samples. Huang et al., arXiv 1603.09382.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"DropPath: p must be in [0, 1), got {p}")
        self.p = p

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Whole rows of the branch, kept or dropped."""
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(len(x), *(1,) * (x.ndim - 1), device=x.device) >= self.p
        return x * (kept.to(x.dtype) / (1 - self.p))

    def extra_repr(self) -> str:
        """The rate."""
        return f"p={self.p:g}"


def linear_rates(blocks: Sequence[int], last: float) -> list[list[float]]:
    """The rate of each block of each stage: from 0 at the first to `last` at the last, last * j / (n - 1)."""
    total, j, rates = sum(blocks), 0, []
    for count in blocks:
        rates.append([last * place / max(1, total - 1) for place in range(j, j + count)])
        j += count
    return rates
