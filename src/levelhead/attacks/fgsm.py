"""The fast gradient sign method: one step to the corner of the box that the gradient points to."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from levelhead.attacks._ball import Norm
from levelhead.attacks._loss import Loss, check_loss
from levelhead.attacks._victim import Victim, check_counts
from levelhead.attacks._within_ball import WithinBall
from levelhead.types import Reference


@dataclass(frozen=True)
class FGSM(WithinBall):
    """x' = clip(x + eps sign(grad_x loss)), loss = -log p(y | x) of the deployed mixture. arXiv 1412.6572.

    eps     radius, in the units of x (pixels in [0, 1]).
    norm    "linf": of the largest coordinate; "l2": of the whole row, and the step is eps g / |g|.
    bounds  of the inputs.
    loss    "ce"; "margin" = max_{k != y} log p_k - log p_y; "dlr" = margin / (z_(1) - z_(3)), of 3 classes or more.
    draws   calls of a stochastic predictor that a gradient is the mean of.

    x (batch, *input) and labels y (batch,); where the gradient is zero nothing moves. Draws nothing itself.
    Raises CannotCompose for predictors without a gradient in x, or beliefs that are not about one label a row.
    """

    reference: ClassVar = Reference(
        "Goodfellow, Shlens & Szegedy", 2015, arxiv="1412.6572", title="Explaining and harnessing adversarial examples"
    )
    eps: float = 8 / 255
    norm: Norm = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    loss: Loss = "ce"
    draws: int = 1

    def __post_init__(self) -> None:
        self.ball.check("FGSM")
        check_loss("FGSM", self.loss)
        check_counts("FGSM", draws=self.draws)

    def on(self, victim: Victim) -> Float[Tensor, "batch *input"]:
        """See `Attack`."""
        gradient = victim.ascent(victim.x, victim.rows, loss=self.loss, draws=self.draws).gradient
        return self.ball.project(victim.x + self.eps * self.ball.steepest(gradient), victim.x)
