"""Signed steps towards higher loss inside a step of training, and in which mode the network stands while they are made.

"side"   training mode with the noise of the step's own pass, and no statistic moves: the step sees one network.
"train"  training passes like any other: layers draw anew, and running statistics move with each of them.
"eval"   the network as it predicts: running statistics, and no layer draws.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.forward import Forward, gradient
from levelhead.probe import evaluating
from levelhead.types import Scalar

AttackMode = Literal["side", "train", "eval"]
Push = Callable[[Tensor], Tensor]


def uphill(forward: Forward, mode: AttackMode) -> Push:
    """The signs of the gradient of the likelihood's loss in x, at any x in place of the batch's."""
    y, rows = forward.batch.y, len(forward.batch.x)

    def loss(x: Tensor) -> Scalar:
        # summed over rows: the sign stays, and tiny gradients of large batches do not vanish in half precision
        return rows * forward.network.likelihood.loss(outputs_at(forward, x, mode), y)

    # what is no number pushes nowhere: no step may turn an image into NaN
    return lambda x: torch.nan_to_num(gradient(loss, x)).sign()


def outputs_at(
    forward: Forward, x: Float[Tensor, "batch *input"], mode: AttackMode
) -> Float[Tensor, "row *batch output"]:
    """The outputs of an extra pass at x, with the step's hyper-parameters."""
    if mode == "side":
        return forward.at(x)
    if mode == "train":
        return forward.on(x=x).outputs
    with evaluating(forward.network):
        return forward.on(x=x).outputs


def climb(
    x: Float[Tensor, "batch *input"],
    push: Push,
    *,
    eps: float | Tensor,
    size: float | Tensor,
    steps: int,
    start: Float[Tensor, "batch *input"] | None = None,
    bounds: tuple[float | Tensor, float | Tensor] | None = None,
) -> Float[Tensor, "batch *input"]:
    """x' <- Pi(x' + size * push(x')), `steps` times from `start` (None: x); detached.

    Pi: back into the box |x' - x| <= eps, then into the bounds. eps, size and bounds are numbers, or tensors that
    broadcast over x, such as one number a channel. With bounds that hold x, x' stays in the box too.
    """
    x = x.detach()
    moved = x if start is None else within(start.detach(), x, eps, bounds)
    for _ in range(steps):
        moved = within(moved + size * push(moved), x, eps, bounds)
    return moved.detach()


def within(
    moved: Float[Tensor, "batch *input"],
    x: Float[Tensor, "batch *input"],
    eps: float | Tensor,
    bounds: tuple[float | Tensor, float | Tensor] | None,
) -> Float[Tensor, "batch *input"]:
    """The nearest point in the box of eps around x, then the nearest in the bounds."""
    moved = torch.clamp(moved, x - eps, x + eps)
    if bounds is None:
        return moved
    low, high = (torch.as_tensor(bound, dtype=x.dtype, device=x.device) for bound in bounds)
    return torch.clamp(moved, low, high)


def check_attack_mode(name: str, mode: str) -> None:
    """ValueError for a mode that there is not."""
    if mode not in get_args(AttackMode):
        raise ValueError(f"{name}: attack_mode must be 'side', 'train' or 'eval', got {mode!r}")
