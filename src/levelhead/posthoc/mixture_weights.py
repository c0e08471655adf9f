"""Weights of a mixture's members: by what they say about held-out rows, or by their marginal likelihood."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from levelhead.predictive import CategoricalMixture, Predictive, along_members, mix
from levelhead.predictor import Ensemble, Point, Predictor, predict
from levelhead.recalibration.held_out import FittedOnRows, undecided
from levelhead.recalibration.mixing import mixing
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose, Reference

SOURCES = ("calibration", "evidence")
LOWEST = -1e30  # a label that every member excludes weighs for none of them


@runtime_checkable
class HasEvidence(Protocol):
    """A predictor that knows the log marginal likelihood of its training rows, in nats (Laplace's are)."""

    evidence: float


@dataclass(frozen=True)
class MixtureWeights:
    """p(y | x) = sum_k w_k p_k(y | x) with other weights w than the members came with.

    by       "calibration": the w of least mean -log p(y | x) on task.calibration, a concave problem. "evidence": w_k ~
             w_k exp(evidence_k), the Bayesian weights of members that are Laplace posteriors around different modes:
             "laplace + deep_ensemble + mixture_weights(by='evidence')".
    per_row  evidence per training row instead of their sum. The sum differs between members by about the number of
             rows, so that one of them takes all; per row they are nearly even. Only for "evidence".

    Members are those of a combinator, or those that share one network (BatchEnsemble). Their predictions stay, and so
    do members inside members (draws). Raises CannotCompose where there are no several members or no evidence, and for
    soft labels, ValueError for unknown sources and for per_row without evidence.

    Eschenhagen et al., arXiv 2111.03577, who weigh all members alike and leave other weights open.
    """

    reference: ClassVar = Reference(
        "Eschenhagen, Daxberger, Hennig & Kristiadi",
        2021,
        arxiv="2111.03577",
        title="Mixtures of Laplace Approximations for Improved Post-Hoc Uncertainty in Deep Learning",
    )
    by: str = "calibration"
    per_row: bool = False

    def __post_init__(self) -> None:
        if self.by not in SOURCES:
            raise ValueError(f"MixtureWeights: by must be one of {SOURCES}, got {self.by!r}")
        if self.per_row and self.by != "evidence":
            raise ValueError(f"MixtureWeights: per_row divides evidence, and by={self.by!r} uses none; leave it out")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The mixture under its new weights."""
        parts = members_of(predictor)
        if self.by == "evidence":
            own = prior_weights(predictor, parts)
            scale = 1 / len(task.train) if self.per_row else 1.0
            evidence = own.new_tensor([evidence_of(part) for part in mixed(predictor)])
            return Weighted(predictor, (own + scale * evidence).log_softmax(0))
        log_weights = mixing(log_likelihoods(predictor, parts, task.calibration, void=task.likelihood.void))
        return Weighted(predictor, log_weights, task.calibration.digest)


class Weighted(FittedOnRows):
    """A mixture whose members have the weights log_weights (member,), whatever they had."""

    log_weights: Tensor

    def __init__(self, inner: Predictor, log_weights: Float[Tensor, " member"], fitted_on: str = "") -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("log_weights", log_weights)
        self.fitted_on = fitted_on
        self.eval()

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        if isinstance(self.inner, Ensemble):
            return mix([member(x) for member in self.inner.members], self.log_weights)
        belief = self.inner(x)
        samples = belief.num_members // len(self.log_weights)
        return belief.with_weights(repeat(self.log_weights, "member -> (member sample)", sample=samples))

    def children_predictors(self) -> Sequence[Predictor]:
        """The mixture inside."""
        return (self.inner,)


def members_of(predictor: Predictor) -> int:
    """How many members a mixture has. Raises CannotCompose for one, and for what only wraps a mixture."""
    if isinstance(predictor, Ensemble) and len(predictor.members) > 1:
        return len(predictor.members)
    if isinstance(predictor, Point) and predictor.network.num_members > 1:
        return predictor.network.num_members
    raise CannotCompose(
        f"MixtureWeights() weighs the members of a mixture, and {type(predictor).__name__} is none, or has one. Put it "
        "right behind a combinator: 'laplace + deep_ensemble(size=5) + mixture_weights'"
    )


def mixed(predictor: Predictor) -> Sequence[Predictor]:
    """The members as predictors. Raises CannotCompose where they share a network."""
    if isinstance(predictor, Ensemble):
        return predictor.children_predictors()
    raise CannotCompose(
        "MixtureWeights(by='evidence') wants members with an evidence each, and these share one network. Write "
        "'laplace + deep_ensemble(size=5) + mixture_weights(by=\"evidence\")', or by='calibration'"
    )


def evidence_of(member: Predictor) -> float:
    """Its log marginal likelihood, or that of the only predictor inside. Raises CannotCompose where there is none."""
    if isinstance(member, HasEvidence):
        return member.evidence
    inner = member.children_predictors()
    if len(inner) == 1:
        return evidence_of(inner[0])
    raise CannotCompose(
        f"MixtureWeights(by='evidence'): a {type(member).__name__} has no marginal likelihood. Put Laplace() into the "
        "member's posthoc steps, or write by='calibration'"
    )


def prior_weights(predictor: Predictor, members: int) -> Float[Tensor, " member"]:
    """The log weights that members came with, in float64."""
    own = predictor.log_weights if isinstance(predictor, Ensemble) else None
    if own is not None:
        return own.double()
    return next(predictor.parameters()).new_zeros(members, dtype=torch.float64)


def log_likelihoods(
    predictor: Predictor, members: int, rows: Split, *, void: int | None
) -> Float[Tensor, "row member"]:
    """log p_k(y_n | x_n) of the rows and sites that count, in float64. Raises CannotCompose for soft labels."""
    parts = predictor.children_predictors() or (predictor,)
    beliefs = [undecided(predict(part, rows), step="MixtureWeights()") for part in parts]
    y = rows.y
    if isinstance(beliefs[0], CategoricalMixture) and y.is_floating_point():
        raise CannotCompose("MixtureWeights() counts one label a row, and these are soft. Write by='evidence'")
    kept = y != void if void is not None else None
    targets = y if kept is None else torch.where(kept, y, 0)
    if len(beliefs) > 1:
        found = torch.stack([belief.log_prob(targets) for belief in beliefs])
    else:
        draws = beliefs[0].member_log_prob(targets)
        draws = draws + along_members(beliefs[0].log_weights, draws.ndim)
        found = torch.logsumexp(rearrange(draws, "(m s) ... -> m s ...", m=members), dim=1)
    counted = found.flatten(1) if kept is None else found[:, kept]
    return counted.double().clamp_min(LOWEST).mT
