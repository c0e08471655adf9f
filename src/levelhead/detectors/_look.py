"""What a detector can see of a batch: the deployed belief, and the features and logits of every member's network.

A member is one set of weights: a network of an ensemble, a draw of a sampler, a member inside a batch ensemble. Its
features and logits are read as in eval, without draws (of dropout, say); beliefs are the deployed predictor's own.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from levelhead.network import Network
from levelhead.predictive import CategoricalMixture, Predictive
from levelhead.predictor import Ensemble, Predictor, WeightSamples
from levelhead.types import CannotCompose


@dataclass(frozen=True, eq=False)
class Reading:
    """What one member makes of a batch.

    features  behind its last stage, what the head reads.
    outputs   of its head: logits, or whatever its likelihood means by them.
    head      features (*batch, feature) -> outputs (*batch, output), of this member.
    """

    features: Float[Tensor, "*batch feature"]
    outputs: Float[Tensor, "*batch output"]
    head: Callable[[Tensor], Tensor]


class Look:
    """One batch as all detectors see it: every pass is made when a detector first asks, and once."""

    def __init__(self, predictor: Predictor, x: Float[Tensor, "batch *input"]) -> None:
        self.predictor = predictor
        self.x = x

    @cached_property
    def belief(self) -> Predictive:
        """What the deployed predictor believes."""
        return self.predictor(self.x)

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """What every member makes of the batch, in the order of `log_weights`."""
        return tuple(reading for leaf in self._leaves for reading in leaf.readings(self.x))

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """The members' weights in the mixture; they sum to one."""
        return tuple(
            math.exp(leaf.log_weight) / leaf.network.num_members
            for leaf in self._leaves
            for _ in range(leaf.network.num_members)
        )

    def averaged(self, scores: list[Float[Tensor, "*batch"]]) -> Float[Tensor, "*batch"]:
        """The mean of one score a member, under the members' weights in the mixture."""
        stacked = torch.stack(scores)
        return einsum(stacked.new_tensor(self.weights), stacked, "m, m ... -> ...")

    def classes(self, *, wanted_by: str) -> CategoricalMixture:
        """The belief, where it is about classes. Raises CannotCompose where it is not."""
        if isinstance(self.belief, CategoricalMixture):
            return self.belief
        raise CannotCompose(
            f"{wanted_by} scores probabilities of classes, and this predictor regresses. Use a detector of features, "
            "such as KNN(), or the predictive variances, which the suite ood always measures"
        )

    def logits(self, *, wanted_by: str) -> tuple[Float[Tensor, "*batch class"], ...]:
        """Every member's raw logits. Raises CannotCompose where there are no classes, or no networks."""
        self.classes(wanted_by=wanted_by)
        return tuple(reading.outputs for reading in seen(self.readings, wanted_by=wanted_by))

    @cached_property
    def _leaves(self) -> tuple["_Leaf", ...]:
        return tuple(_leaves(self.predictor, 0.0))


def seen(readings: tuple[Reading, ...], *, wanted_by: str) -> tuple[Reading, ...]:
    """The readings, where there are some. Raises CannotCompose where the predictor has no networks."""
    if readings:
        return readings
    raise CannotCompose(
        f"{wanted_by} reads the features or logits of a network, and this predictor shows none (networks() is empty). "
        "Use a detector of beliefs: MaxProbability(), Entropy(), MutualInformation() or ODIN()"
    )


class _Leaf(NamedTuple):
    """A network under one set of weights."""

    network: Network
    weights: Mapping[str, Tensor]
    log_weight: float

    def readings(self, x: Float[Tensor, "batch *input"]) -> Iterator[Reading]:
        """What each of its members makes of a batch."""
        features = self._under(_Body(self.network), x)
        outputs = self._under(_Head(self.network), features)
        for member in range(self.network.num_members):
            yield Reading(features[member], outputs[member], self._head_of(member))

    def _head_of(self, member: int) -> Callable[[Tensor], Tensor]:
        def head(z: Tensor) -> Tensor:
            rows = z.expand(self.network.num_members, *z.shape)
            return self._under(_Head(self.network), rows)[member]

        return head

    def _under(self, part: nn.Module, value: Tensor) -> Tensor:
        named = {f"network.{name}": tensor for name, tensor in self.weights.items()}
        out: Tensor = functional_call(part, named, (value,)) if named else part(value)
        return out


class _Body(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.embed(x)


class _Head(_Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.network.read(x)


def _leaves(predictor: Predictor, log_weight: float) -> Iterator[_Leaf]:
    """The networks of a predictor under each of their weights, with their shares of the mixture."""
    inside = list(predictor.children_predictors())
    if inside:
        own = predictor.log_weights if isinstance(predictor, Ensemble) else None
        for child, share in zip(inside, _shares(own, len(inside)), strict=True):
            yield from _leaves(child, log_weight + share)
    elif isinstance(predictor, WeightSamples):
        for draw, share in enumerate(_shares(predictor.log_weights, predictor.num_draws)):
            weights = {name: t[draw] for name, t in predictor.draws.items()}
            yield _Leaf(predictor.network, weights, log_weight + share)
    else:
        networks = list(predictor.networks())
        for network in networks:
            yield _Leaf(network, {}, log_weight - math.log(len(networks)))


def _shares(log_weights: Tensor | None, size: int) -> list[float]:
    given = torch.zeros(size) if log_weights is None else log_weights
    shares: list[float] = F.log_softmax(given.double(), dim=0).tolist()
    return shares
