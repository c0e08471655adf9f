"""How strongly a likelihood's loss curves in a network's outputs: closed forms, no derivative by machine."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.likelihood import Categorical, Gaussian, Likelihood
from levelhead.types import CannotCompose, Targets

MAX_DECOMPOSED = 128  # classes: beyond, the decompositions would cost more than the columns they spare


class OutputCurvature(Protocol):
    """Lambda_n (output, output) of every row n: the Fisher information of the outputs, positive semi-definite."""

    def dense(self) -> Float[Tensor, "batch output output"]:
        """Every Lambda_n."""

    def diagonal(self) -> Float[Tensor, "batch output"]:
        """Their diagonals."""

    def total(self) -> Float[Tensor, "output output"]:
        """Their sum, without building each."""

    def root(self, *, precision: float = 0.0) -> Float[Tensor, "k batch output"]:
        """Columns s_k of a square root: Lambda_n = sum_k s_kn s_kn'.

        precision  share of sum_n trace Lambda_n that may be left out, if that spares columns.
        """


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

    def root(self, *, precision: float = 0.0) -> Float[Tensor, "k batch output"]:
        """See `OutputCurvature.root`: eigenvectors, of the largest eigenvalues first; for many classes in closed form.

        Columns that add nothing at this precision are left out. That is one at least, for Lambda 1 = 0, and more where
        the network is sure of all rows. In closed form: sqrt(p_k) (e_k - p).
        """
        if self.probs.shape[1] <= MAX_DECOMPOSED:
            values, vectors = torch.linalg.eigh(self.dense())
            values = values.clamp_min(0).flip(-1)
            left = values.sum(0).flip(0).cumsum(0).flip(0)  # what the k-th column and those behind it add
            kept = max(1, int((left > max(precision, torch.finfo(values.dtype).eps) * left[0]).sum()))
            return torch.einsum("n k, n c k -> k n c", values.sqrt(), vectors.flip(-1))[:kept]
        roots = self.probs.sqrt()
        return torch.einsum("n k, k c -> k n c", roots, torch.eye(roots.shape[1]).to(roots)) - torch.einsum(
            "n k, n c -> k n c", roots, self.probs
        )


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

    def root(self, *, precision: float = 0.0) -> Float[Tensor, "k batch output"]:
        """See `OutputCurvature.root`."""
        return torch.einsum("n k, k c -> k n c", self.weights.sqrt(), torch.eye(self.weights.shape[1]).to(self.weights))


@dataclass(frozen=True, eq=False)
class Outer:
    """Lambda = sum_k v_k v_k': of gradients at the labels (the empirical Fisher) or at labels that were drawn."""

    vectors: Float[Tensor, "k batch output"]

    def dense(self) -> Float[Tensor, "batch output output"]:
        """See `OutputCurvature.dense`."""
        return torch.einsum("k n c, k n d -> n c d", self.vectors, self.vectors)

    def diagonal(self) -> Float[Tensor, "batch output"]:
        """See `OutputCurvature.diagonal`."""
        return self.vectors.square().sum(0)

    def total(self) -> Float[Tensor, "output output"]:
        """See `OutputCurvature.total`."""
        return torch.einsum("k n c, k n d -> c d", self.vectors, self.vectors)

    def root(self, *, precision: float = 0.0) -> Float[Tensor, "k batch output"]:
        """See `OutputCurvature.root`."""
        return self.vectors


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


def empirical_curvature(likelihood: Likelihood, outputs: Float[Tensor, "batch output"], y: Targets) -> Outer:
    """g_n g_n', g_n the gradient of the loss in the outputs at the targets: the empirical Fisher."""
    return Outer(loss_gradients(likelihood, outputs[None], y))


def sampled_curvature(likelihood: Likelihood, outputs: Float[Tensor, "batch output"], num_draws: int) -> Outer:
    """The mean of g_n g_n' over targets drawn from the predictive itself: the Fisher information in expectation.

    Draws come from torch's global stream. Raises CannotCompose for likelihoods that are not known here.
    """
    if isinstance(likelihood, Categorical):
        drawn = torch.multinomial(outputs.softmax(-1), num_draws, replacement=True).T
    elif isinstance(likelihood, Gaussian):
        belief = likelihood.predictive(outputs[None])
        drawn = belief.mean + belief.stddev * torch.randn(num_draws, *belief.mean.shape).to(belief.mean)
    else:
        raise CannotCompose(f"No targets can be drawn here from {type(likelihood).__name__}; write kind='ggn'")
    return Outer(loss_gradients(likelihood, outputs.expand(num_draws, -1, -1), drawn) / num_draws**0.5)


def loss_gradients(
    likelihood: Likelihood, outputs: Float[Tensor, "k batch output"], y: Targets
) -> Float[Tensor, "k batch output"]:
    """The gradient in the outputs of every row's negative log likelihood, in nats."""
    with torch.enable_grad():
        leaf = outputs.detach().clone().requires_grad_()
        return torch.autograd.grad(likelihood.member_loss(leaf, y).sum(), leaf)[0]
