"""What a network's last axis means (likelihoods, open) and what a predictor believes (predictives, closed).

A predictive is a mixture over members. Everything stays in log space; uncertainty is in nats for classes and in
squared target units for regression, and total = aleatoric + epistemic in both.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from levelhead.types import Targets

LOG_TWO_PI = math.log(2 * math.pi)


class Predictive(ABC):
    """A mixture over members, one distribution a row of the batch. Final: CategoricalMixture, GaussianMixture.

    log_weights  (member,): normalised log mixture weights.
    log_density  (*batch,) or None: log density of the features, where a method models it.
    sets         (*batch, class) or None: prediction sets, from an outermost conformal step.
    intervals    (*batch, target, 2) or None: prediction intervals (low, high), likewise, in target units.
    accepted     (*batch,) or None: False where a selective step abstains; the belief itself stays.
    """

    log_weights: Float[Tensor, " member"]
    log_density: Float[Tensor, "*batch"] | None
    sets: Bool[Tensor, "*batch class"] | None
    intervals: Float[Tensor, "*batch target 2"] | None
    accepted: Bool[Tensor, "*batch"] | None

    @abstractmethod
    def member_log_prob(self, y: Targets) -> Float[Tensor, "member *batch"]:
        """Log probability (density) of the targets under each member, in nats."""

    @abstractmethod
    def total(self) -> Float[Tensor, "*batch"]:
        """Uncertainty of the mixture: entropy in nats, or variance in squared target units (summed over targets)."""

    @abstractmethod
    def aleatoric(self) -> Float[Tensor, "*batch"]:
        """Expected uncertainty of a member: what remains when the member is known."""

    def epistemic(self) -> Float[Tensor, "*batch"]:
        """Disagreement of the members: total - aleatoric (mutual information, or variance of the means), at least 0."""
        return (self.total() - self.aleatoric()).clamp_min(0.0)

    def log_prob(self, y: Targets) -> Float[Tensor, "*batch"]:
        """Log probability (density) of the targets under the mixture, in nats."""
        members = self.member_log_prob(y)
        return torch.logsumexp(members + along_members(self.log_weights, members.ndim), dim=0)

    @property
    def num_members(self) -> int:
        """Number of mixture components."""
        return len(self.log_weights)

    @abstractmethod
    def tensors(self) -> dict[str, Tensor | None]:
        """The fields by name: enough to rebuild the value with `type(self)(**tensors)`."""

    @abstractmethod
    def components(self) -> dict[str, Tensor]:
        """The fields with a leading member axis."""

    def with_weights(self, log_weights: Float[Tensor, " member"]) -> Self:
        """The same members under other (unnormalised) log weights."""
        return replace(self, log_weights=log_weights)  # type: ignore[type-var]

    def with_log_density(self, log_density: Float[Tensor, "*batch"] | None) -> Self:
        """The same beliefs with the features' log density attached."""
        return replace(self, log_density=log_density)  # type: ignore[type-var]

    def with_sets(self, sets: Bool[Tensor, "*batch class"] | None) -> Self:
        """The same beliefs with prediction sets attached."""
        return replace(self, sets=sets)  # type: ignore[type-var]

    def with_intervals(self, intervals: Float[Tensor, "*batch target 2"] | None) -> Self:
        """The same beliefs with prediction intervals attached."""
        return replace(self, intervals=intervals)  # type: ignore[type-var]

    def with_accepted(self, accepted: Bool[Tensor, "*batch"] | None) -> Self:
        """The same beliefs, and of which rows they are given at all."""
        return replace(self, accepted=accepted)  # type: ignore[type-var]

    @property
    def decided(self) -> bool:
        """Whether sets, intervals or abstentions were attached: they hold for exactly these beliefs."""
        return any(decision is not None for decision in (self.sets, self.intervals, self.accepted))

    def detach(self) -> Self:
        """The same value, cut from the graph."""
        return type(self)(**{name: None if t is None else t.detach() for name, t in self.tensors().items()})

    def to(self, device: torch.device | str) -> Self:
        """The same value on `device`."""
        return type(self)(**{name: None if t is None else t.to(device) for name, t in self.tensors().items()})

    def __getitem__(self, rows: slice | Tensor) -> Self:
        """The same beliefs about some rows of the batch."""
        per_member = self.components()
        fields: dict[str, Tensor | None] = {}
        for name, t in self.tensors().items():
            fields[name] = t if t is None or name == "log_weights" else t[:, rows] if name in per_member else t[rows]
        return type(self)(**fields)


@dataclass(frozen=True, eq=False)
class CategoricalMixture(Predictive):
    """sum_m w_m Categorical(softmax(logits_m)).

    logits (member, *batch, class): normalised here once. log_weights default to uniform.
    """

    logits: Float[Tensor, "member *batch class"]
    log_weights: Float[Tensor, " member"] = None  # type: ignore[assignment]
    log_density: Float[Tensor, "*batch"] | None = None
    sets: Bool[Tensor, "*batch class"] | None = None
    intervals: None = None
    accepted: Bool[Tensor, "*batch"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "logits", F.log_softmax(self.logits, dim=-1))
        object.__setattr__(self, "log_weights", normalised(self.log_weights, self.logits))

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.logits.shape[-1]

    @property
    def log_probs(self) -> Float[Tensor, "*batch class"]:
        """Log probabilities of the mixture, in nats."""
        if self.num_members == 1:
            return self.logits[0]
        return torch.logsumexp(self.logits + along_members(self.log_weights, self.logits.ndim), dim=0)

    @property
    def probs(self) -> Float[Tensor, "*batch class"]:
        """Probabilities of the mixture."""
        return self.log_probs.exp()

    @property
    def confidence(self) -> Float[Tensor, "*batch"]:
        """Probability of the most likely class, in [1 / num_classes, 1]."""
        return self.log_probs.amax(-1).exp()

    @property
    def label(self) -> Int[Tensor, "*batch"]:
        """The most likely class."""
        return self.log_probs.argmax(-1)

    def member_log_prob(self, y: Targets) -> Float[Tensor, "member *batch"]:
        """Log probability of labels (*batch) under each member; soft labels (*batch, class) give the cross-entropy."""
        if y.is_floating_point():
            return (self.logits * y).sum(-1)
        if y.shape != self.logits.shape[1:-1]:
            raise ValueError(
                f"Predictive.log_prob: y has shape {tuple(y.shape)}, "
                f"the predictions want {tuple(self.logits.shape[1:-1])}"
            )
        index = y.expand(self.logits.shape[:-1]).unsqueeze(-1)
        return rearrange(self.logits.gather(-1, index), "... 1 -> ...")

    def total(self) -> Float[Tensor, "*batch"]:
        """Entropy of the mixture, nats, in [0, log num_classes]."""
        return entropy(self.log_probs)

    def aleatoric(self) -> Float[Tensor, "*batch"]:
        """Expected entropy of a member, nats."""
        members = entropy(self.logits)
        return (members * along_members(self.log_weights, members.ndim).exp()).sum(0)

    def tensors(self) -> dict[str, Tensor | None]:
        """See `Predictive.tensors`."""
        return {
            "logits": self.logits,
            "log_weights": self.log_weights,
            "log_density": self.log_density,
            "sets": self.sets,
            "intervals": self.intervals,
            "accepted": self.accepted,
        }

    def components(self) -> dict[str, Tensor]:
        """See `Predictive.components`."""
        return {"logits": self.logits}


@dataclass(frozen=True, eq=False)
class GaussianMixture(Predictive):
    """sum_m w_m Normal(mean_m, variance_m), independent over targets, in the targets' own units.

    model_variances  (member, *batch, target): the part of `variances` that is uncertainty about the member itself, for
                     methods whose single network says it; None where all of it is noise of the data.
    """

    means: Float[Tensor, "member *batch target"]
    variances: Float[Tensor, "member *batch target"]
    log_weights: Float[Tensor, " member"] = None  # type: ignore[assignment]
    log_density: Float[Tensor, "*batch"] | None = None
    sets: None = None
    intervals: Float[Tensor, "*batch target 2"] | None = None
    accepted: Bool[Tensor, "*batch"] | None = None
    model_variances: Float[Tensor, "member *batch target"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_weights", normalised(self.log_weights, self.means))

    @property
    def weights(self) -> Float[Tensor, "member *one"]:
        """Mixture weights, shaped to multiply `means`."""
        return along_members(self.log_weights, self.means.ndim).exp()

    @property
    def mean(self) -> Float[Tensor, "*batch target"]:
        """Mean of the mixture."""
        return (self.means * self.weights).sum(0)

    @property
    def variance(self) -> Float[Tensor, "*batch target"]:
        """Variance of the mixture, by the law of total variance."""
        spread = (self.means - self.mean).square()
        return ((self.variances + spread) * self.weights).sum(0)

    @property
    def stddev(self) -> Float[Tensor, "*batch target"]:
        """Standard deviation of the mixture."""
        return self.variance.sqrt()

    def member_log_prob(self, y: Targets) -> Float[Tensor, "member *batch"]:
        """Log density of targets (*batch, target), summed over the target axis."""
        if y.shape != self.means.shape[1:]:
            raise ValueError(
                f"Predictive.log_prob: y has shape {tuple(y.shape)}, the predictions want {tuple(self.means.shape[1:])}"
            )
        residual = (y - self.means).square() / self.variances
        return -0.5 * (residual + self.variances.log() + LOG_TWO_PI).sum(-1)

    def total(self) -> Float[Tensor, "*batch"]:
        """Variance of the mixture, summed over targets."""
        return self.variance.sum(-1)

    def aleatoric(self) -> Float[Tensor, "*batch"]:
        """Expected variance of a member without the model's part, summed over targets."""
        noise = self.variances if self.model_variances is None else self.variances - self.model_variances
        return (noise * self.weights).sum(0).sum(-1)

    def tensors(self) -> dict[str, Tensor | None]:
        """See `Predictive.tensors`."""
        return {
            "means": self.means,
            "variances": self.variances,
            "log_weights": self.log_weights,
            "log_density": self.log_density,
            "sets": self.sets,
            "intervals": self.intervals,
            "accepted": self.accepted,
            "model_variances": self.model_variances,
        }

    def components(self) -> dict[str, Tensor]:
        """See `Predictive.components`."""
        own = {"means": self.means, "variances": self.variances}
        return own if self.model_variances is None else own | {"model_variances": self.model_variances}


def mix(parts: list[Predictive], log_weights: Float[Tensor, " part"] | None = None) -> Predictive:
    """One mixture of several: members are concatenated, weights multiplied by the parts'.

    Densities are mixed too where every part has one. Sets, intervals and abstentions do not survive mixing.
    Raises ValueError for no parts or parts of different kinds.
    """
    if not parts or any(type(part) is not type(parts[0]) for part in parts):
        raise ValueError(f"mix: wants predictives of one kind, got {[type(part).__name__ for part in parts]}")
    if len(parts) == 1 and log_weights is None:
        return parts[0]
    outer = normalised(log_weights, torch.stack([part.log_weights.sum() for part in parts]))
    weights = torch.cat([part.log_weights + w for part, w in zip(parts, outer, strict=True)])
    if any("model_variances" in part.components() for part in parts):
        parts = [_says_model_variances(part) for part in parts]
    fields: dict[str, Any] = {
        name: torch.cat([part.components()[name] for part in parts]) for name in parts[0].components()
    }
    densities = [part.log_density for part in parts]
    known = [d for d in densities if d is not None]
    if len(known) == len(parts):
        stacked = torch.stack(known)
        fields["log_density"] = torch.logsumexp(stacked + along_members(outer, stacked.ndim), dim=0)
    fields["log_weights"] = weights
    return type(parts[0])(**fields)


def _says_model_variances(part: Predictive) -> Predictive:
    """The same belief; where it says nothing of the model's part of its variances, that part is 0."""
    if not isinstance(part, GaussianMixture) or part.model_variances is not None:
        return part
    return replace(part, model_variances=torch.zeros_like(part.variances))


def concatenate(parts: list[Predictive]) -> Predictive:
    """One predictive over the rows of several, in order; members must agree in number and weight."""
    first = parts[0]
    per_member = first.components()
    fields: dict[str, Any] = {}
    for name, tensor in first.tensors().items():
        if tensor is None or name == "log_weights":
            fields[name] = tensor
        else:
            fields[name] = torch.cat(
                [_present(part.tensors()[name]) for part in parts], dim=1 if name in per_member else 0
            )
    return type(first)(**fields)


def _present(tensor: Tensor | None) -> Tensor:
    assert tensor is not None, "batches of one predictor carry the same fields"
    return tensor


def entropy(log_probs: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch"]:
    """Shannon entropy in nats; classes of probability zero count nothing."""
    return -(log_probs.exp() * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(-1)


def along_members(log_weights: Float[Tensor, " member"], ndim: int) -> Float[Tensor, "member *one"]:
    """Weights shaped to broadcast against a tensor of `ndim` axes with members first."""
    return log_weights.reshape(-1, *(1,) * (ndim - 1))


def normalised(log_weights: Tensor | None, like: Float[Tensor, "member ..."]) -> Float[Tensor, " member"]:
    """Log weights that sum to one in probability; uniform where None."""
    size = len(like)
    if log_weights is None:
        return like.new_full((size,), -math.log(size))
    if log_weights.shape != (size,):
        raise ValueError(
            f"log_weights: wants one weight for each of {size} members, got shape {tuple(log_weights.shape)}"
        )
    return F.log_softmax(log_weights.to(like), dim=0)
