"""What the specs of artificial inputs share: the protocol, and boxes."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Draw = Callable[[int], Float[Tensor, "point *input"]]


def in_box(low: Float[Tensor, "*input"], high: Float[Tensor, "*input"]) -> Draw:
    """Points uniform between two corners, from torch's global stream."""

    def draw(num: int) -> Float[Tensor, "point *input"]:
        return low + (high - low) * torch.rand(num, *low.shape, dtype=low.dtype, device=low.device)

    return draw


def some_of(rows: Float[Tensor, "row *input"], num: int) -> Float[Tensor, "point *input"]:
    """Rows drawn with replacement, from torch's global stream."""
    return rows[places(rows, num)]


def places(rows: Tensor, num: int) -> Tensor:
    """Places of rows drawn with replacement."""
    return torch.randint(len(rows), (num,), device=rows.device)
