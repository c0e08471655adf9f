"""Greedy selection of ensembles from models that are already there (Caruana et al., 2004).

Starting from nothing, the model that lowers the score of the mixture most is added, again and again, until k different
models are in it or nothing lowers it any more. A model may be added again, which weighs it. The score of a prefix needs
its running sum alone, so a search over M models costs M passes over the validation rows a step.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.types import LevelheadError

OBJECTIVES = ("nll", "accuracy", "nll-acc", "brier")


class NoFiniteScore(LevelheadError, ValueError):
    """No model has a finite score; the text says what is usual then."""


class Selection(NamedTuple):
    """What was picked.

    indices  places of the models, in the order of the picks; a model that was picked twice stands here twice.
    members  the different models among them, in the order of their first picks.
    weights  of the members, their share of all picks: the mixture is sum_j weights_j p_j.
    history  the score of the mixture after each pick; it falls strictly.
    """

    indices: tuple[int, ...]
    members: tuple[int, ...]
    weights: tuple[float, ...]
    history: tuple[float, ...]

    @property
    def log_weights(self) -> Float[Tensor, " member"]:
        """Logarithms of the weights, as an `Ensemble` takes them."""
        return torch.tensor(self.weights, dtype=torch.float64).log().float()


def greedy_select(
    log_probs: Float[Tensor, "model row class"],
    y: Int[Tensor, " row"],
    k: int,
    *,
    objective: str = "nll",
    with_replacement: bool = True,
    max_picks: int | None = None,
) -> Selection:
    """The multiset E of at most k different models that greedily lowers S(E), the score of mean_{j in E} p_j.

    log_probs  of each model on held-out rows, in nats, normalised over classes. Logits would select something else.
    objective  S: "nll" -log p(y); "accuracy" minus the share of right labels; "nll-acc" their sum; "brier" |p - 1_y|^2;
               each a mean over rows, lower is better.
    max_picks  bound on the picks, repeated ones counted.

    Ties go to the lowest index. Raises ValueError for k < 1, unknown objectives, and rows that are not normalised.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"greedy_select: objective must be one of {OBJECTIVES}, got {objective!r}")
    log_probs = log_probs.detach().double()
    worst = float(log_probs.logsumexp(-1).abs().max())
    if not worst < 1e-3:
        raise ValueError(
            f"greedy_select: log_probs wants log probabilities over classes, but a row's probabilities sum to "
            f"exp(+-{worst:.3g}); pass log_softmax(logits)"
        )
    if objective == "nll":  # only the true class counts
        truth = log_probs.gather(-1, y.expand(len(log_probs), -1).unsqueeze(-1)).squeeze(-1)
        return _greedy(truth, _nll, k, with_replacement, max_picks)

    def score(mixtures: Float[Tensor, "model row class"]) -> Float[Tensor, " model"]:
        if objective == "brier":
            probs = mixtures.exp()
            probs.scatter_add_(-1, y.expand(len(probs), -1).unsqueeze(-1), -torch.ones_like(probs[..., :1]))
            return probs.square().sum(-1).mean(-1)
        wrong = -(mixtures.argmax(-1) == y).double().mean(-1)
        if objective == "accuracy":
            return wrong
        return wrong + _nll(mixtures.gather(-1, y.expand(len(mixtures), -1).unsqueeze(-1)).squeeze(-1))

    return _greedy(log_probs, score, k, with_replacement, max_picks)


def greedy_select_densities(
    log_densities: Float[Tensor, "model row"],
    k: int,
    *,
    with_replacement: bool = True,
    max_picks: int | None = None,
) -> Selection:
    """`greedy_select` by the negative log likelihood of a mixture of any predictions: -log mean_{j in E} p_j(y).

    log_densities  log p_j(y | x) of the targets under each model: `Predictive.log_prob(y)`, for regression too.
    """
    return _greedy(log_densities.detach().double(), _nll, k, with_replacement, max_picks)


def _nll(log_likelihoods: Float[Tensor, "model row"]) -> Float[Tensor, " model"]:
    return -log_likelihoods.mean(-1)


def _greedy(
    candidates: Float[Tensor, "model row *class"],
    score: Callable[[Tensor], Float[Tensor, " model"]],
    k: int,
    with_replacement: bool,
    max_picks: int | None,
) -> Selection:
    """The greedy loop on log probabilities of any shape."""
    if k < 1:
        raise ValueError(f"greedy_select: k must be at least 1, got {k}")
    if max_picks is not None and max_picks < 1:
        raise ValueError(f"greedy_select: max_picks must be at least 1 or None, got {max_picks}")
    total = torch.full_like(candidates[0], -math.inf)  # log of the running sum of probabilities
    picks: list[int] = []
    history: list[float] = []
    while len(set(picks)) < k and (max_picks is None or len(picks) < max_picks):
        scores = score(torch.logaddexp(total, candidates) - math.log(len(picks) + 1))
        if not with_replacement:
            scores[picks] = math.inf
        best = int(scores.argmin())  # the first of equals
        if not float(scores[best]) < (history[-1] if history else math.inf):
            break
        picks.append(best)
        history.append(float(scores[best]))
        total = torch.logaddexp(total, candidates[best])
    if not picks:
        raise NoFiniteScore("greedy_select: no model has a finite score on these rows; look for probabilities of zero")
    members = tuple(dict.fromkeys(picks))
    weights = tuple(picks.count(member) / len(picks) for member in members)
    return Selection(tuple(picks), members, weights, tuple(history))
