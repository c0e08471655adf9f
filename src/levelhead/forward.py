"""Forward: one step's clean pass and its side passes. Objectives are functions of it, terms middleware around them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.network import Network
from levelhead.passes import noise_state, side_pass
from levelhead.types import Batch, Scalar


class Forward:
    """A batch on its way through a network. The clean outputs are computed once, however many terms want them."""

    def __init__(self, network: Network, batch: Batch, *, outputs: Tensor | None = None, noise: Any = None) -> None:
        self.network = network
        self.batch = batch
        self._outputs = outputs
        self._noise = noise

    @property
    def outputs(self) -> Float[Tensor, "row *batch output"]:
        """The clean outputs, with their graph; computed when first asked for."""
        if self._outputs is None:
            self._remember_noise()
            self._outputs = self._pass(self.batch.x)
        return self._outputs

    def on(self, **changes: Any) -> "Forward":
        """The same step on another x, y, index, hyper or per_member. Outputs are kept where they stay the same."""
        kept = None if {"x", "hyper", "per_member"} & set(changes) else self._outputs
        return Forward(
            self.network, self.batch._replace(**changes), outputs=kept, noise=self._noise if kept is not None else None
        )

    def at(self, x: Float[Tensor, "batch *input"]) -> Float[Tensor, "row *batch output"]:
        """Outputs of a side pass at x: same hyper, same noise as the clean pass, no statistic moves."""
        self._remember_noise()
        with side_pass(self.network, self._noise):
            return self._pass(x)

    def given(self, outputs: Float[Tensor, "row *batch output"]) -> "Forward":
        """The same step with outputs that a joint pass already made."""
        return Forward(self.network, self.batch, outputs=outputs, noise=self._noise)

    def tracked(self) -> Self:
        """The same step with gradients to x, without cutting an outer graph; outputs are computed from that x."""
        x = self.batch.x
        if x.requires_grad:
            return self
        return type(self)(self.network, self.batch._replace(x=x.detach().requires_grad_(True)))

    def _pass(self, x: Tensor) -> Tensor:
        return self.network(x, hyper=self.batch.hyper, per_member=self.batch.per_member)

    def _remember_noise(self) -> None:
        if self._noise is None:
            self._noise = noise_state(self.network.device)


Objective = Callable[[Forward], Scalar]


class Term(Protocol):
    """A regulariser at work in one fit: middleware around the objective it is given."""

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective with this term's part; may be called several times a step."""

    def end_epoch(self, network: Network) -> None:
        """What it does between epochs."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""


@runtime_checkable
class Watching(Protocol):
    """A term that also watches the fit. Both are asked for after each `end_epoch`; `finished` before the first too."""

    @property
    def watched(self) -> Mapping[str, float]:
        """Numbers of the finished epoch, for its line of the log; names must differ between the terms of a fit."""

    @property
    def finished(self) -> bool:
        """Whether the fit is to end here. Part of the term's state: a resumed fit ends at the same epoch."""


class Stateless:
    """Mixin of regularisers without state: the spec is its own term."""

    def start(self, network: Network, task: Any, run: Any) -> Any:  # a Term: what inherits this defines __call__
        """The term of one fit: the spec itself."""
        return self

    def end_epoch(self, network: Network) -> None:
        """Nothing happens between epochs."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def network_loss(forward: Forward) -> Scalar:
    """The innermost objective: the likelihood's mean loss on the clean outputs, in nats."""
    return forward.network.likelihood.loss(forward.outputs, forward.batch.y)


class Extended:
    """An objective inside terms, the first outermost. Samplers that know a kind of term find it in `terms`."""

    def __init__(self, objective: Objective, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)
        for term in reversed(self.terms):
            objective = _inside(term, objective)
        self.objective = objective

    def __call__(self, forward: Forward) -> Scalar:
        """The objective with all terms."""
        return self.objective(forward)


def extend(objective: Objective, terms: Sequence[Term]) -> Extended:
    """The objective inside all terms; the first listed is outermost."""
    return Extended(objective, terms)


def _inside(term: Term, inner: Objective) -> Objective:
    def extended(forward: Forward) -> Scalar:
        return term(inner, forward)

    return extended


def gradient(function: Callable[[Tensor], Scalar], at: Tensor) -> Tensor:
    """The gradient of a scalar function at a point, without touching parameters' gradients."""
    with torch.enable_grad():
        point = at.detach().requires_grad_(True)
        return torch.autograd.grad(function(point), point)[0]
