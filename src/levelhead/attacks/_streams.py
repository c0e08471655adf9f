"""A random stream for every row, so that what a row meets depends neither on its neighbours nor on who still stands."""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Streams:
    """Streams started at `seeds`, one a row. They draw on the CPU: the same numbers on every device."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)

    @cached_property
    def generators(self) -> list[torch.Generator]:
        """The streams; made when first asked, as many attacks draw nothing."""
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def uniform(self, rows: Int[Tensor, " row"], *, like: Float[Tensor, "row *shape"]) -> Float[Tensor, "row *shape"]:
        """Uniform in [0, 1), shaped like `like`, the next of each row's stream."""
        return self._draw(torch.rand, rows, like)

    def normal(self, rows: Int[Tensor, " row"], *, like: Float[Tensor, "row *shape"]) -> Float[Tensor, "row *shape"]:
        """Standard normal, shaped like `like`, the next of each row's stream."""
        return self._draw(torch.randn, rows, like)

    def _draw(self, draw: object, rows: Tensor, like: Tensor) -> Tensor:
        drawn = [
            draw(like.shape[1:], generator=self.generators[row])  # type: ignore[operator]
            for row in rows.tolist()
        ]
        return torch.stack(drawn).to(like)
