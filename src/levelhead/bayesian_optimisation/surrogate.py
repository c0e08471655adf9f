"""What is fitted to the values known so far: any recipe, as a function from points to mean and standard deviation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.noiseless import Noiseless
from levelhead.nomu.likelihood import model_std
from levelhead.predictive import GaussianMixture
from levelhead.predictor import Predictor
from levelhead.recipe import Fit
from levelhead.tasks.measure import moments
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task

Belief = Callable[[Tensor], tuple[Tensor, Tensor]]  # (point, dimension) -> mean (point,), std (point,)


class Surrogate(Protocol):
    """Points and exact values to a belief about all other points."""

    def __call__(self, x: Float[Tensor, "row dimension"], y: Float[Tensor, " row"], seed: int) -> Belief:
        """The belief, differentiable in the points."""


@dataclass(frozen=True)
class Fitted:
    """A recipe, fitted anew to all values known: its mean and its epistemic standard deviation.

    Nothing is held out: a step that fits on calibration rows would meet the training rows, so recipes here should have
    none of these.
    """

    recipe: Fit

    def __call__(self, x: Float[Tensor, "row dimension"], y: Float[Tensor, " row"], seed: int) -> Belief:
        """See `Surrogate`."""
        predictor = self.recipe.fit(known_values(x, y), seed, rehearsed=True)
        predictor.requires_grad_(False)
        return belief_of(predictor)


def belief_of(predictor: Predictor) -> Belief:
    """Mean and epistemic standard deviation of a predictor about one real target."""

    def belief(x: Float[Tensor, "point dimension"]) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
        found = predictor(x)
        if not isinstance(found, GaussianMixture) or found.mean.shape[-1] != 1:
            raise ValueError("belief_of: wants a predictor about one real target")
        return rearrange(found.mean, "point 1 -> point"), rearrange(model_std(found), "point 1 -> point")

    return belief


def known_values(x: Float[Tensor, "row dimension"], y: Float[Tensor, " row"]) -> Task:
    """A task of exact values: every row is for training, and stands in for the rows held out of other tasks."""
    targets = rearrange(y, "row -> row 1")
    shift, scale = moments(targets)
    rows = Split("known", x, targets)
    return Task("known-values", rows, rows, rows, rows, Noiseless(1, shift, scale), known_overlaps=True)
