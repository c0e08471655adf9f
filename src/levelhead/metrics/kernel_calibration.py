"""Calibration error as a distance between distributions: a kernel instead of bins."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from levelhead.metrics.rows import top_label
from levelhead.types import Scalar

WIDTH = 0.4
NARROWEST = 0.01  # exp(1 / width) must be a float64


def kernel_ece(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, width: float = WIDTH, void: int | None = None
) -> Scalar:
    """Kernel calibration error ("MMCE") of the top label, in [0, 1]; see `kernel_error`."""
    confidence, correct = top_label(log_probs, y, void=void)
    return kernel_error(confidence, correct, width=width).clamp_min(0.0).sqrt()


def kernel_error(
    confidence: Float[Tensor, " row"],
    outcome: Bool[Tensor, " row"] | Float[Tensor, " row"],
    *,
    width: float = WIDTH,
    unbiased: bool = False,
) -> Scalar:
    """The squared error mean_ij (c_i - a_i) (c_j - a_j) exp(-|c_i - c_j| / width), in [0, 1].

    `unbiased` leaves the pairs i = j out: zero on average for calibrated predictions, of either sign. Exact in
    O(row log row): in order of confidence the kernel factors into exp(c_i / width) exp(-c_j / width).
    Kumar, Sarawagi and Jain 2018, "Trainable calibration measures for neural networks from kernel mean embeddings".
    """
    if not width >= NARROWEST:
        raise ValueError(f"width: wants at least {NARROWEST}, got {width}")
    if len(confidence) < (2 if unbiased else 1):
        raise ValueError(f"confidence: wants {2 if unbiased else 1} rows or more, got {len(confidence)}")
    ordered, order = confidence.double().sort()
    residual = ordered - outcome[order].double()
    grown = F.pad((residual * torch.exp(ordered / width)).cumsum(0), (1, -1))  # over the rows before
    pairs = 2 * (residual * torch.exp(-ordered / width) * grown).sum()
    num = len(ordered)
    if unbiased:
        return pairs / (num * (num - 1))
    return (pairs + residual.square().sum()) / num**2
