"""EmpCov: a prior that leaves the first layer no freedom where the training inputs do not vary."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.network import Network
from levelhead.priors.correlated import Correlated
from levelhead.priors.independent import Gaussian
from levelhead.priors.inputs import Moments, first_layers, moments_seen
from levelhead.priors.paper import PAPER
from levelhead.priors.term import Prior, independent
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import CannotCompose, Reference

NO_BIAS = "EmpCovPrior: {name} has no bias to include. Write include_bias=False"


@dataclass(frozen=True)
class EmpCovPrior:
    """loss - log p(w) / N;  first-layer neurons ~ N(0, alpha Sigma + eps I), other weights ~ N(0, scale^2).

    Sigma is the covariance of what the first layer sees of the training rows: inputs behind the normalisation layer,
    or a convolution's patches with its own padding and stride (in the order of its filters), measured once, in one
    pass, in float64, without augmentation. Along an input direction of variance s^2 the prior's variance is
    alpha s^2 + eps: where training inputs do not vary, the posterior is the prior, and this prior holds weights near 0
    there, so that a test input which leaves the training inputs' subspace moves no pre-activation. Posterior sampling,
    mean-field inference and Laplace with drawn weights need that; point estimates and deep ensembles do not.

    alpha             factor on Sigma. None: scale^2 tr(Sigma) / tr(Sigma^2), with which pre-activations of training
                      rows have the variance that the Gaussian prior of `scale` gives them: correlated inputs (images)
                      have a large tr(Sigma^2), and alpha = scale^2 would make functions of many times the size.
    eps               variance where inputs have none; above 0 wherever Sigma is singular.
    scale             standard deviation of all other weights, and of biases.
    include_bias      the first layer's bias is part of the neuron: with z = (input, 1), Sigma = E[z z'], not centred,
                      whose null directions are the affine constraints c . x = c0 (a constant pixel with the bias).
                      False: Sigma is centred, weights along such directions are held each by itself, the bias is free.
    also_independent  True: times N(0, scale^2 I), so the precision is (alpha Sigma + eps I)^-1 + I / scale^2 and no
                      direction has more variance than scale^2. The published results are of this form, with
                      alpha = scale^2 = 0.01 and no eps: that is what the reference code computes.

    With `mean_field` the energy is its expectation under q, beside `elbo`, whose own prior of the layer stays.

    Raises CannotCompose where no linear layer or convolution reads the input, where its weights are computed from
    others, and where Sigma is singular and eps is 0. Izmailov et al., arXiv 2106.11905.
    """

    reference: ClassVar[Reference] = PAPER
    holds_still_inputs: ClassVar = True  # the doctor need not advise it
    alpha: float | None = None
    eps: float = 1e-4
    scale: float = 0.1
    include_bias: bool = False
    also_independent: bool = False

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"EmpCovPrior: scale must be positive, got {self.scale}")
        if self.alpha is not None and not self.alpha > 0:
            raise ValueError(f"EmpCovPrior: alpha must be positive, or None for the Gaussian's size; got {self.alpha}")
        if not 0 <= self.eps < math.inf:
            raise ValueError(f"EmpCovPrior: eps must be finite and not negative, got {self.eps}")

    def start(self, network: Network, task: Task, run: Run) -> Prior:
        """The term of one fit: one pass over the training rows."""
        layers = first_layers(network, author="EmpCovPrior")
        seen = moments_seen(network, layers, task.train, run)
        pieces = []
        for layer in layers:
            module = network.get_submodule(layer.name)
            if self.include_bias and not isinstance(module.bias, nn.Parameter):
                raise CannotCompose(NO_BIAS.format(name=layer.name))
            covariance = self.covariance(seen[layer.name], int(getattr(module, "groups", 1)))
            if len(task.train) < task.num_train:  # a dry run: directions that its few rows leave out are no finding
                covariance = covariance + torch.eye(covariance.shape[-1]).to(covariance)
            pieces.append(
                Correlated(network, layer.name, covariance, with_bias=self.include_bias, author="EmpCovPrior")
            )
        return independent(Gaussian(self.scale), network, len(task.train), author="EmpCovPrior", besides=pieces)

    def covariance(self, moments: Moments, groups: int) -> Float[Tensor, "group input input"]:
        """The prior's covariance of each group's inputs, the bias last."""
        sigma = moments.with_one if self.include_bias else moments.covariance
        inputs = rearrange(torch.arange(len(moments.mean)), "(group input) -> group input", group=groups)
        if self.include_bias:
            inputs = torch.cat([inputs, torch.full((groups, 1), len(sigma) - 1)], 1)
        blocks = torch.stack([sigma[rows][:, rows] for rows in inputs.to(sigma.device)])
        found = self.factor(blocks) * blocks + self.eps * torch.eye(blocks.shape[-1]).to(blocks)
        if not self.also_independent:
            return found
        variances, axes = torch.linalg.eigh(found)
        bounded = variances * self.scale**2 / (variances + self.scale**2)
        return (axes * rearrange(bounded, "group u -> group 1 u")) @ axes.mT

    def factor(self, sigma: Float[Tensor, "group input input"]) -> float:
        """alpha. Where no input varies at all any factor is the same."""
        if self.alpha is not None:
            return self.alpha
        size = float(sigma.square().sum())
        return self.scale**2 * float(sigma.diagonal(dim1=1, dim2=2).sum()) / size if size else 1.0
