"""What a Gaussian over a network's outputs means, link by link: one place for every Laplace posterior."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.links import bridge, mackay, probit
from levelhead.likelihood import Gaussian, Likelihood
from levelhead.predictive import CategoricalMixture, Predictive
from levelhead.types import CannotCompose

CLOSED = ("probit", "mackay", "bridge")  # from moments of the outputs
DRAWN = ("mc", "weights")  # from draws, of functions linear in the weights or of the weights themselves
LINKS = (*CLOSED, *DRAWN)
PAIRWISE = ("mackay", "bridge")  # these want covariances between classes


def linked(
    likelihood: Likelihood,
    link: str,
    outputs: Float[Tensor, "row *batch output"],
    spread: Float[Tensor, "row ..."],
) -> Predictive:
    """The belief of outputs ~ Normal(outputs, spread), for a link of `CLOSED`.

    spread  variances (..., output), or covariances (..., output, output) for the links in `PAIRWISE`. Regression:
            variances of the means alone, the model's part of the belief's; the noise is added to them.
    """
    if isinstance(likelihood, Gaussian):
        mean, noise = likelihood.moments(outputs)
        return likelihood.unstandardised(mean, noise + spread, spread)
    if link == "probit":
        return CategoricalMixture(probit(outputs, spread))
    return CategoricalMixture(mackay(outputs, spread) if link == "mackay" else bridge(outputs, spread))


def check_link(likelihood: Likelihood, link: str) -> None:
    """Raise CannotCompose for links to classes where there are none."""
    if isinstance(likelihood, Gaussian) and link in PAIRWISE:
        raise CannotCompose(
            f"Laplace(link={link!r}) links to classes. For regression leave the default, or write link='mc'"
        )


def as_dtype(belief: Any, dtype: torch.dtype) -> Predictive:
    """The belief in another floating type."""
    return type(belief)(**{name: None if t is None else t.to(dtype) for name, t in belief.tensors().items()})
