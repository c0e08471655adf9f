"""What attacks share: the objective of the deployed mixture, its gradient in x, and the set of allowed inputs.

Attacks are functions (predictor, x, y, generator) -> x'. They take the predictor as it is deployed, over all members
and samples; one that draws with a fixed noise seed is attacked at those draws, so give it `with_noise(None)` first.
Nothing of the predictor changes: no parameter gradient, no mode, no statistic.
"""

from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from levelhead.predictive import CategoricalMixture, Predictive
from levelhead.predictor import Predictor
from levelhead.probe import evaluating
from levelhead.types import CannotCompose, Targets

Loss = Literal["ce", "margin"]


class Attack(Protocol):
    """A search for an input near x on which the predictor is wrong. A frozen dataclass in a file of its own name."""

    def __call__(
        self, predictor: Predictor, x: Float[Tensor, "batch *input"], y: Targets, generator: torch.Generator
    ) -> Float[Tensor, "batch *input"]:
        """The attacked inputs, detached; `x` is untouched."""


class Ascent(NamedTuple):
    """A gradient of the objective in x, and how wrong the predictor is there: the margin, positive where it errs."""

    gradient: Float[Tensor, "batch *input"]
    margin: Float[Tensor, " batch"]


def ascent(predictor: Predictor, x: Float[Tensor, "batch *input"], y: Targets, *, loss: Loss, draws: int) -> Ascent:
    """The gradient of the summed objective, averaged over `draws` calls of the predictor; margins of the same calls."""
    gradients, margins = [], []
    with torch.inference_mode(False), torch.enable_grad(), evaluating(predictor):
        for _ in range(draws):
            point = x.detach().clone().requires_grad_(True)
            belief = predictor(point)
            # summed: the batch size must not scale a row's gradient
            gradients.append(torch.autograd.grad(objective(belief, y, loss).sum(), point)[0])
            margins.append(margin(belief, y).detach())
    return Ascent(torch.stack(gradients).mean(0), torch.stack(margins).mean(0))


def objective(belief: Predictive, y: Targets, loss: Loss) -> Float[Tensor, " batch"]:
    """What an attack raises: -log p(y) of the mixture, or the margin, whose gradient does not fade where p(y) is 1."""
    return margin(belief, y) if loss == "margin" else -belief.log_prob(y)


def margin(belief: Predictive, y: Targets) -> Float[Tensor, " batch"]:
    """max_{k != y} log p_k - log p_y of the mixture. Raises CannotCompose for beliefs that are not about labels."""
    if not isinstance(belief, CategoricalMixture) or belief.log_probs.ndim != 2:
        raise CannotCompose("Attacks want one label a row; for real targets and maps there is no wrong answer to reach")
    right = F.one_hot(y, belief.num_classes).bool()
    log_probs = belief.log_probs
    return log_probs.masked_fill(right, -torch.inf).amax(-1) - log_probs.gather(-1, y[:, None])[:, 0]


def allowed(
    moved: Float[Tensor, "batch *input"], x: Float[Tensor, "batch *input"], eps: float, bounds: tuple[float, float]
) -> Float[Tensor, "batch *input"]:
    """The nearest point with |x' - x| <= eps in every coordinate and inside the bounds."""
    return torch.clamp(torch.clamp(moved, x - eps, x + eps), *bounds)


def check(name: str, *, eps: float, bounds: tuple[float, float], draws: int, loss: Loss = "ce") -> None:
    """Raise ValueError for settings that mean nothing."""
    if eps < 0:
        raise ValueError(f"{name}: eps must not be negative, got {eps}")
    if not bounds[0] < bounds[1]:
        raise ValueError(f"{name}: bounds wants a lower and a higher number, got {bounds}")
    if draws < 1:
        raise ValueError(f"{name}: draws must be at least 1, got {draws}")
    if loss not in ("ce", "margin"):
        raise ValueError(f"{name}: loss must be 'ce' or 'margin', got {loss!r}")


def check_differentiable(predictor: Predictor) -> None:
    """Raise CannotCompose where some part of the predictor has no gradient in x."""
    for part in predictor.modules():
        if isinstance(part, Predictor) and not part.differentiable:
            raise CannotCompose(
                f"{type(part).__name__} is not differentiable in x, so an attack by gradients would only seem to fail. "
                "Attack the predictor before this step"
            )
