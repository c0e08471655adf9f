"""What attacks raise, written on the log probabilities of the deployed mixture: adding to logits changes nothing."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Loss = Literal["ce", "margin", "dlr"]

Rows = Float[Tensor, " row"]
LogProbs = Float[Tensor, "row class"]
Labels = Int[Tensor, " row"]


def objective(log_probs: LogProbs, y: Labels, loss: Loss, other: Labels | None = None) -> Rows:
    """ce: -log p_y.  margin: max_{k != y} log p_k - log p_y.  dlr: see `dlr`. Towards `other` where it is given.

    Towards a class t: ce is log p_t, margin is log p_t - log p_y. Raises ValueError for dlr of too few classes.
    """
    if loss == "dlr":
        return dlr(log_probs, y, other)
    if loss == "margin":
        return margin(log_probs, y) if other is None else at(log_probs, other) - at(log_probs, y)
    return -at(log_probs, y) if other is None else at(log_probs, other)


def margin(log_probs: LogProbs, y: Labels) -> Rows:
    """max_{k != y} log p_k - log p_y: positive where the predictor errs. Its gradient does not fade where p_y is 1."""
    right = F.one_hot(y, log_probs.shape[-1]).bool()
    return log_probs.masked_fill(right, -torch.inf).amax(-1) - at(log_probs, y)


def dlr(log_probs: LogProbs, y: Labels, other: Labels | None = None) -> Rows:
    """Difference of logits ratio: margin / (z_(1) - z_(3)), z sorted downwards; blind to shift and scale of logits.

    Towards t: (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2). Raises ValueError below 3 (4) classes. arXiv 2003.01690.
    """
    classes, needed = log_probs.shape[-1], 3 if other is None else 4
    if classes < needed:
        kind = "'dlr'" if other is None else "'dlr' with targets"
        raise ValueError(f"loss {kind} wants at least {needed} classes, got {classes}; use loss='margin'")
    ordered = log_probs.topk(needed, dim=-1).values
    if other is None:
        spread, gap = ordered[:, 0] - ordered[:, 2], margin(log_probs, y)
    else:
        spread = ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3])
        gap = at(log_probs, other) - at(log_probs, y)
    return gap / spread.clamp_min(1e-12)  # equal logits have no spread


def at(log_probs: LogProbs, k: Labels) -> Rows:
    """log p_k of each row."""
    return log_probs.gather(-1, k[:, None])[:, 0]


def check_loss(name: str, loss: str) -> None:
    """ValueError for a loss that there is not."""
    if loss not in get_args(Loss):
        raise ValueError(f"{name}: loss must be 'ce', 'margin' or 'dlr', got {loss!r}")
