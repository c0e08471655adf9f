"""How strongly a likelihood's loss curves in a network's outputs: closed forms, no derivative by machine."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.likelihood import Categorical, Gaussian, Likelihood
from levelhead.types import CannotCompose


class OutputCurvature(Protocol):
    """Lambda_n (output, output) of every row n: the Fisher information of the outputs, positive semi-definite."""

    def dense(self) -> Float[Tensor, "batch output output"]:
        """Every Lambda_n."""

    def diagonal(self) -> Float[Tensor, "batch output"]:
        """Their diagonals."""

    def total(self) -> Float[Tensor, "output output"]:
        """Their sum, without building each."""


@dataclass(frozen=True, eq=False)
class Softmax:
    """Lambda = diag(p) - p p', of the cross-entropy in the logits: the Hessian itself."""

    probs: Float[Tensor, "batch output"]

    def dense(self) -> Float[Tensor, "batch output output"]:
        """See `OutputCurvature.dense`."""
        return torch.diag_embed(self.probs) - torch.einsum("n c, n d -> n c d", self.probs, self.probs)

    def diagonal(self) -> Float[Tensor, "batch output"]:
        """See `OutputCurvature.diagonal`."""
        return self.probs * (1 - self.probs)

    def total(self) -> Float[Tensor, "output output"]:
        """See `OutputCurvature.total`."""
        return torch.diag(self.probs.sum(0)) - self.probs.T @ self.probs


@dataclass(frozen=True, eq=False)
class Independent:
    """Lambda = diag(weights): outputs that do not interact."""

    weights: Float[Tensor, "batch output"]

    def dense(self) -> Float[Tensor, "batch output output"]:
        """See `OutputCurvature.dense`."""
        return torch.diag_embed(self.weights)

    def diagonal(self) -> Float[Tensor, "batch output"]:
        """See `OutputCurvature.diagonal`."""
        return self.weights

    def total(self) -> Float[Tensor, "output output"]:
        """See `OutputCurvature.total`."""
        return torch.diag(self.weights.sum(0))


def output_curvature(likelihood: Likelihood, outputs: Float[Tensor, "batch output"]) -> OutputCurvature:
    """The Fisher information of a likelihood in the outputs, in nats.

    Categorical: diag(p) - p p'. Gaussian with mean m and variance s = softplus(r) + floor, standardised: 1 / s in m and
    (ds/dr)^2 / (2 s^2) in r. Raises CannotCompose for other likelihoods.
    """
    if isinstance(likelihood, Categorical):
        return Softmax(outputs.softmax(-1))
    if isinstance(likelihood, Gaussian):
        variance = likelihood.moments(outputs)[1]
        slope = outputs[..., likelihood.num_targets :].sigmoid()
        return Independent(torch.cat([1 / variance, slope.square() / (2 * variance.square())], dim=-1))
    raise CannotCompose(
        f"The curvature of a {type(likelihood).__name__} likelihood is not known here; Categorical and Gaussian are"
    )
