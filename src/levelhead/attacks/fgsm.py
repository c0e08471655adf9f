"""The fast gradient sign method: one step to the corner of the box that the gradient points to."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.attacks._ascent import Loss, allowed, ascent, check, check_differentiable
from levelhead.predictor import Predictor
from levelhead.types import Reference, Targets


@dataclass(frozen=True)
class FGSM:
    """x' = clip(x + eps sign(grad_x loss)), loss = -log p(y | x) of the deployed mixture. arXiv 1412.6572.

    eps     radius in the largest coordinate, in the units of x (pixels in [0, 1]).
    bounds  of the inputs.
    loss    "ce", or "margin" = max_{k != y} log p_k - log p_y.
    draws   calls of a stochastic predictor that a gradient is the mean of.

    x (batch, *input) and labels y (batch,); where the gradient is zero nothing moves. Draws nothing itself.
    Raises CannotCompose for predictors without a gradient in x, or beliefs that are not about one label a row.
    """

    reference: ClassVar = Reference(
        "Goodfellow, Shlens & Szegedy", 2015, arxiv="1412.6572", title="Explaining and harnessing adversarial examples"
    )
    eps: float = 8 / 255
    bounds: tuple[float, float] = (0.0, 1.0)
    loss: Loss = "ce"
    draws: int = 1

    def __post_init__(self) -> None:
        check("FGSM", eps=self.eps, bounds=self.bounds, draws=self.draws, loss=self.loss)

    def __call__(
        self, predictor: Predictor, x: Float[Tensor, "batch *input"], y: Targets, generator: torch.Generator
    ) -> Float[Tensor, "batch *input"]:
        """See `Attack`."""
        check_differentiable(predictor)
        gradient = ascent(predictor, x, y, loss=self.loss, draws=self.draws).gradient
        return allowed(x + self.eps * gradient.sign(), x, self.eps, self.bounds).detach()
