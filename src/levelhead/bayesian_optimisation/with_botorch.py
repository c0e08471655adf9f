"""BoTorch beside this library's surrogates: its acquisition functions on our predictors, its GP in our loop.

Needs the extra `gp`. Everything is imported where it is used.
"""

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.bayesian_optimisation.surrogate import Belief, belief_of
from levelhead.predictor import Predictor
from levelhead.types import require

NOISE = 1e-6  # variance that keeps a kernel matrix positive definite, in standardised units


def as_model(predictor: Predictor) -> Any:
    """The predictor as a BoTorch model of one output: a normal posterior at each point, points independent.

    Mean and epistemic standard deviation; inputs in [-1, 1]^d or whatever the predictor was fitted on, in any leading
    shape (..., q, d). Analytic acquisition functions (UCB, LogEI) and `optimize_acqf` take it; joint ones (q > 1) see
    no correlation between points. Raises MissingExtra without BoTorch.
    """
    return model_of(belief_of(predictor), like=next(predictor.parameters()))


def model_of(belief: Belief, *, like: Tensor) -> Any:
    """A belief as a BoTorch model, computed in the dtype of `like`."""
    model_module = require("botorch.models.model", extra="gp")
    posteriors = require("botorch.posteriors.gpytorch", extra="gp")
    distributions = require("gpytorch.distributions", extra="gp")
    operators = require("linear_operator.operators", extra="gp")

    class BeliefModel(model_module.Model):  # type: ignore[name-defined,misc]
        """Independent normals."""

        num_outputs = 1
        batch_shape = torch.Size()

        def posterior(self, X: Tensor, output_indices: Any = None, observation_noise: Any = False, **_: Any) -> Any:
            """Mean and variance at X (..., q, d)."""
            mean, std = belief(X.reshape(-1, X.shape[-1]).to(like))
            mean, variance = (t.reshape(X.shape[:-1]).to(X) for t in (mean, std.square()))
            return posteriors.GPyTorchPosterior(
                distributions.MultivariateNormal(mean, operators.DiagLinearOperator(variance))
            )

    return BeliefModel()


@dataclass(frozen=True)
class GaussianProcess:
    """BoTorch's SingleTaskGP as a surrogate: exact values, standardised, hyper-parameters by marginal likelihood.

    In float64; its defaults otherwise (a kernel with a length scale a dimension).
    """

    def __call__(self, x: Float[Tensor, "row dimension"], y: Float[Tensor, " row"], seed: int) -> Belief:
        """See `Surrogate`."""
        model = fitted_gp(x, y)

        def belief(points: Float[Tensor, "point dimension"]) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
            found = model.posterior(rearrange(points.double(), "point d -> point 1 d"))
            mean, variance = (rearrange(t, "point 1 1 -> point") for t in (found.mean, found.variance))
            return mean.to(points), variance.clamp_min(0).add(1e-18).sqrt().to(points)

        return belief


def fitted_gp(x: Float[Tensor, "row dimension"], y: Float[Tensor, " row"]) -> Any:
    """A SingleTaskGP after maximising its marginal likelihood, inputs in [-1, 1]^d. Raises MissingExtra."""
    models = require("botorch.models", extra="gp")
    fit = require("botorch.fit", extra="gp")
    transforms = require("botorch.models.transforms", extra="gp")
    likelihoods = require("gpytorch.mlls", extra="gp")
    inputs, targets = x.double(), rearrange(y.double(), "row -> row 1")
    noise = torch.full_like(targets, NOISE) * targets.var()
    bounds = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand(2, x.shape[1])
    model = models.SingleTaskGP(
        inputs,
        targets,
        train_Yvar=noise,
        outcome_transform=transforms.Standardize(m=1),
        input_transform=transforms.Normalize(d=x.shape[1], bounds=bounds),
    )
    fit.fit_gpytorch_mll(likelihoods.ExactMarginalLogLikelihood(model.likelihood, model))
    return model.requires_grad_(False)


def propose(
    model: Any, num_dimensions: int, *, best: float, c: float | None = None, restarts: int = 5, candidates: int = 256
) -> Float[Tensor, " dimension"]:
    """The next point by BoTorch alone: the maximum of its LogEI, or of its UCB with factor c, on [-1, 1]^d."""
    analytic = require("botorch.acquisition.analytic", extra="gp")
    optim = require("botorch.optim", extra="gp")
    if c is None:
        acquisition = analytic.LogExpectedImprovement(model, best_f=best)
    else:
        acquisition = analytic.UpperConfidenceBound(model, beta=c**2)
    box = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand(2, num_dimensions)
    point, _ = optim.optimize_acqf(acquisition, box, q=1, num_restarts=restarts, raw_samples=candidates)
    return rearrange(point, "1 d -> d")
