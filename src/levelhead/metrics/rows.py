"""The rows of a classification split that count: flat, checked, in float64. Every metric of classes starts here."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

NORMALISATION_TOLERANCE = (
    1e-4  # of the sum of a row's probabilities; logits of half precision want float() before log_softmax
)


def labelled_rows(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, void: int | None = None
) -> tuple[Float[Tensor, "row class"], Int[Tensor, " row"]]:
    """Log probabilities (float64) and labels of the rows and sites whose label is not `void`, flattened.

    Raises ValueError for shapes that do not match, no row left, NaN, rows that do not sum to one within 1e-4 and
    labels outside 0 ... class - 1.
    """
    if log_probs.shape[:-1] != y.shape:
        raise ValueError(f"y: wants shape {tuple(log_probs.shape[:-1])} to match log_probs, got {tuple(y.shape)}")
    log_probs, y = rearrange(log_probs, "... k -> (...) k"), y.reshape(-1)
    if void is not None:
        kept = y != void
        log_probs, y = log_probs[kept], y[kept]
    if len(y) == 0:
        raise ValueError("y: no row counts (it is empty, or every label is void); a metric needs at least one")
    num_classes = log_probs.shape[-1]
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"y: labels must lie in 0 ... {num_classes - 1}, got {low} ... {high}; name the label of sites "
            "that do not count with void="
        )
    return normalised_rows(log_probs), y.long()


def normalised_rows(log_probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "row class"]:
    """Log probabilities in float64, flat; raises ValueError for NaN and rows that do not sum to one within 1e-4."""
    log_probs = rearrange(log_probs, "... k -> (...) k").double()
    off = (torch.logsumexp(log_probs, dim=-1).exp() - 1).abs().amax()
    if not off <= NORMALISATION_TOLERANCE:  # also true for NaN
        raise ValueError(
            f"log_probs: rows must be log probabilities that sum to one, the worst sum is off by {float(off):.3g}; "
            "pass log_softmax(logits), in float32 or wider, not logits or probabilities"
        )
    return log_probs


def top_label(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, void: int | None = None
) -> tuple[Float[Tensor, " row"], Bool[Tensor, " row"]]:
    """Confidence max_k p_k in [1 / class, 1] and whether the most likely class is right, for the rows that count."""
    log_probs, y = labelled_rows(log_probs, y, void=void)
    best, label = log_probs.max(dim=-1)
    return best.exp().clamp_max(1.0), label == y
