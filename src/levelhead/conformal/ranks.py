"""The order statistic behind every split-conformal promise, plain and weighted."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

GUARD = 1e-9  # (n + 1)(1 - alpha) is often a whole number that floating point puts just above itself


def rank(n: int, alpha: float) -> int:
    """ceil((n + 1)(1 - alpha)): which of n sorted scores is the threshold; more than n means that none is.

    A new exchangeable score is at most the one of this rank with probability in [1 - alpha, 1 - alpha + 1 / (n + 1)),
    ties aside; given the n scores, the coverage is distributed as Beta(rank, n + 1 - rank).
    """
    check_alpha(alpha)
    return max(math.ceil((n + 1) * (1 - alpha) - GUARD), 1)


def threshold(scores: Float[Tensor, " row"], alpha: float) -> Float[Tensor, ""]:
    """The score of that rank, by sorting and not by interpolation; infinite where there are too few."""
    place = rank(len(scores), alpha)
    if place > len(scores):
        return scores.new_tensor(torch.inf)
    return scores.sort().values[place - 1]


def weighted_thresholds(
    scores: Float[Tensor, " row"],
    log_weights: Float[Tensor, " row"],
    *,
    at: Float[Tensor, " batch"],
    alpha: float,
) -> Float[Tensor, " batch"]:
    """The smallest score s with sum of w_i over scores at most s >= (1 - alpha)(sum of all w_i + w(x)), for each x.

    log_weights  log density ratios of the calibration rows, new rows over calibration rows, up to a shared constant.
    at           those of the new rows. Where their weight outweighs what is known, the threshold is infinite.

    With equal weights this is `threshold`. Tibshirani, Foygel Barber, Candes & Ramdas, arXiv 1904.06019.
    """
    check_alpha(alpha)
    top = torch.cat([log_weights, at]).amax() if len(at) or len(log_weights) else 0.0
    ordered, order = scores.sort()
    mass = (log_weights - top).exp()[order].cumsum(0)
    total = (mass[-1] if len(mass) else mass.sum()) + (at - top).exp()
    wanted = (1 - alpha) * total
    place = torch.searchsorted(mass, wanted * (1 - GUARD))
    return torch.cat([ordered, ordered.new_tensor([torch.inf])])[place]


def effective_size(log_weights: Float[Tensor, " row"]) -> float:
    """(sum w)^2 / sum w^2: how many equally weighted rows these are worth."""
    return float((2 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2 * log_weights, 0)).exp())


def check_alpha(alpha: float) -> None:
    """Raise ValueError unless alpha is an error rate."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: wants an error rate in (0, 1), got {alpha}")
