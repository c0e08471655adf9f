"""How strange each label would be, given a prediction: the scores of LAC, APS and RAPS. Larger is stranger."""

import torch
from jaxtyping import Float
from torch import Tensor


def lac_scores(log_probs: Float[Tensor, "row class"]) -> Float[Tensor, "row class"]:
    """1 - p_k, so that the set is the labels with p_k >= 1 - threshold."""
    return -torch.expm1(log_probs)


def aps_scores(
    log_probs: Float[Tensor, "row class"], u: Float[Tensor, " row"], *, slope: float = 0.0, free_ranks: int = 0
) -> Float[Tensor, "row class"]:
    """sum_{j <= r} p_(j) - u p_(r) + slope (r - free_ranks)_+,  r the rank of the label from the top, counted from 1.

    u  in [0, 1): uniform draws make the coverage exact, zeros keep the top label in every set that has any.
    """
    ordered, order = log_probs.sort(dim=-1, descending=True, stable=True)
    probs = ordered.exp()
    ranks = torch.arange(1, log_probs.shape[-1] + 1, device=log_probs.device)
    strange = probs.cumsum(-1) - u[:, None] * probs + slope * (ranks - free_ranks).clamp_min(0)
    return torch.empty_like(strange).scatter_(-1, order, strange)
