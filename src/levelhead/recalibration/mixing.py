"""Weights of a mixture that lose least on held-out rows: a concave problem, which EM climbs."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDS = 2000
STILL = 1e-9  # change of a weight in a round of EM: later digits do not show in a probability


def mixing(log_likelihoods: Float[Tensor, "row part"]) -> Float[Tensor, " part"]:
    """Log weights w with the largest sum over rows of log sum_k exp(w_k + log_likelihoods_k), by EM from even ones.

    r_nk ~ exp(w_k) p_nk, exp(w_k) <- mean_n r_nk: no round lowers the likelihood, and the weights stay in the simplex.
    """
    parts = log_likelihoods.shape[1]
    log_weights = log_likelihoods.new_full((parts,), -math.log(parts))
    for _ in range(ROUNDS):
        shares = torch.log_softmax(log_likelihoods + log_weights, dim=-1)
        after = torch.logsumexp(shares, dim=0) - math.log(len(shares))
        if float((after.exp() - log_weights.exp()).abs().max()) < STILL:
            return after
        log_weights = after
    return log_weights
