"""The marginal likelihood of a Laplace approximation, and the prior precisions with which it is largest."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.joint import Joint, PerTensor
from levelhead.curvature.line_search import minimise
from levelhead.curvature.selection import Priors
from levelhead.types import Scalar

PRIOR_RANGE = 1e-4, 1e6
ROUNDS = 50
TINY = torch.finfo(torch.float64).tiny  # weights that are all 0, without curvature, tell nothing of their precision
TOLERANCE = 1e-4  # of the logarithm of a precision


class NetworkEvidence(NamedTuple):
    """log p(data) ~ log p(data | theta*) - (log det P - log det P_0 + theta*' P_0 theta*) / 2, in nats.

    groups  of each tensor, the number of the precision it shares with others.
    """

    curvature: Joint
    log_likelihood: float
    theta: Float[Tensor, " flat"]
    groups: tuple[int, ...]

    @property
    def num_groups(self) -> int:
        """How many precisions there are."""
        return max(self.groups) + 1

    def per_tensor(self, prior: Float[Tensor, " group"]) -> Priors:
        """The precision of each tensor."""
        return prior[torch.tensor(self.groups, device=prior.device)]

    def __call__(self, prior: Float[Tensor, " group"]) -> Scalar:
        """The evidence under a precision a group, differentiable in it; regression: of the standardised targets."""
        sizes = self.theta.new_tensor(self.curvature.selection.sizes)
        squared = torch.stack([t.square().sum() for t in self.theta.split(self.curvature.selection.sizes)])
        each = self.per_tensor(prior)
        penalty = self.curvature.logdet(prior=each) - (sizes * each.log()).sum() + (each * squared).sum()
        return self.log_likelihood - 0.5 * penalty

    def best(self) -> Float[Tensor, " group"]:
        """The precisions with the largest evidence: a line search, where blocks allow it one a group."""
        if self.num_groups == 1:
            return self.theta.new_tensor([minimise(lambda p: -float(self(self.theta.new_tensor([p]))), *PRIOR_RANGE)])
        if isinstance(self.curvature, PerTensor):
            return self.theta.new_tensor([self._best_of_blocks(self.curvature, g) for g in range(self.num_groups)])
        return self._fixed_point()

    def _best_of_blocks(self, curvature: PerTensor, group: int) -> float:
        """Blocks share nothing: each group's part of the evidence has its own maximum."""
        own = [tensor for tensor, of in enumerate(self.groups) if of == group]
        parts = self.theta.split(curvature.selection.sizes)
        values = torch.cat([curvature.blocks[tensor].values.flatten() for tensor in own])
        squared = sum(float(parts[tensor].square().sum()) for tensor in own)
        return minimise(lambda p: float((values / p).log1p().sum()) + p * squared, *PRIOR_RANGE)

    def _fixed_point(self) -> Float[Tensor, " group"]:
        """MacKay's p = (number of weights - p dlogdet / dp) / |theta|^2, until nothing moves."""
        low, high = PRIOR_RANGE
        sizes = self._by_group(self.theta.new_tensor(self.curvature.selection.sizes))
        squared = self._by_group(
            torch.stack([t.square().sum() for t in self.theta.split(self.curvature.selection.sizes)])
        )
        prior = torch.ones_like(sizes)
        for _ in range(ROUNDS):
            with torch.enable_grad():
                leaf = prior.clone().requires_grad_()
                (slope,) = torch.autograd.grad(self.curvature.logdet(prior=self.per_tensor(leaf)), leaf)
            found = ((sizes - prior * slope) / squared.clamp_min(TINY)).clamp(low, high)
            moved = float((found / prior).log().abs().max())
            prior = found
            if moved < TOLERANCE:
                break
        return prior

    def _by_group(self, of_tensors: Float[Tensor, " tensor"]) -> Float[Tensor, " group"]:
        groups = torch.tensor(self.groups, device=of_tensors.device)
        return of_tensors.new_zeros(self.num_groups).index_add(0, groups, of_tensors)


def grouped(names: Sequence[str], *, by_layer: bool) -> tuple[int, ...]:
    """Which tensors share a precision: those of one layer, or all."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names)) if by_layer else []
    return tuple(layers.index(name.rpartition(".")[0]) if by_layer else 0 for name in names)
