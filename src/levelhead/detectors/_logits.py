"""Scores of a vector of logits, higher where more out-of-distribution."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from levelhead.predictive import entropy

NAMES = ("energy", "max_logit", "max_probability", "entropy")


def energy(logits: Float[Tensor, "*batch class"], temperature: float = 1.0) -> Float[Tensor, "*batch"]:
    """-T logsumexp(l / T)."""
    return -temperature * torch.logsumexp(logits / temperature, dim=-1)


def max_logit(logits: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch"]:
    """-max l."""
    return -logits.amax(-1)


def log_rest(log_probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch"]:
    """log(1 - max p), summed over the other classes: for p near one log p itself rounds to 0, and sure rows tie."""
    best = log_probs.argmax(-1, keepdim=True)
    return torch.logsumexp(log_probs.scatter(-1, best, float("-inf")), dim=-1)


def max_probability(log_probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch"]:
    """1 - max p."""
    return log_rest(log_probs).exp()


def score(name: str, logits: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch"]:
    """The score of this name."""
    if name == "energy":
        return energy(logits)
    if name == "max_logit":
        return max_logit(logits)
    log_probs = F.log_softmax(logits, dim=-1)
    return max_probability(log_probs) if name == "max_probability" else entropy(log_probs)
