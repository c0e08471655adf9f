"""Projected gradient descent: many small steps inside the ball, from random starts; the worst iterate is kept."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from levelhead.attacks._ball import Norm
from levelhead.attacks._loss import Loss, check_loss
from levelhead.attacks._victim import Victim, check_counts
from levelhead.attacks._walk import check_size, walk
from levelhead.attacks._within_ball import WithinBall
from levelhead.types import Reference


@dataclass(frozen=True)
class PGD(WithinBall):
    """x <- Pi(x + step_size s), `steps` times, Pi back into the ball of eps and the bounds. arXiv 1706.06083.

    s = sign(grad_x loss) for norm "linf", grad / |grad| for "l2".

    step_size     None: 2.5 eps / steps, or eps for a single step.
    restarts      runs from different starts.
    random_start  start uniformly in the ball instead of at x.
    stop          a row rests as soon as the predictor errs on it: the same accuracy for less work, but not the largest
                  loss, so leave it out where confidence under attack is measured.
    eps, norm, bounds, loss, draws  as in FGSM, which is steps=1, random_start=False.

    Of all iterates of all restarts, each row keeps the one with the largest margin max_{k != y} log p_k - log p_y of
    the mixture: more steps or restarts never help the defence. x (batch, *input), labels y (batch,).
    Raises CannotCompose for predictors without a gradient in x, or beliefs that are not about one label a row.
    """

    reference: ClassVar = Reference(
        "Madry et al.", 2018, arxiv="1706.06083", title="Towards deep learning models resistant to adversarial attacks"
    )
    eps: float = 8 / 255
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = True
    norm: Norm = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    loss: Loss = "ce"
    draws: int = 1
    stop: bool = False

    def __post_init__(self) -> None:
        self.ball.check("PGD")
        check_loss("PGD", self.loss)
        check_counts("PGD", steps=self.steps, restarts=self.restarts, draws=self.draws)
        check_size("PGD", self.step_size)
        if self.restarts > 1 and not self.random_start:
            raise ValueError("PGD: restarts without random_start would repeat the same run; set random_start=True")

    def on(self, victim: Victim) -> Float[Tensor, "batch *input"]:
        """See `Attack`."""
        return walk(
            victim,
            self.ball,
            steps=self.steps,
            size=self.step_size,
            restarts=self.restarts,
            random_start=self.random_start,
            loss=self.loss,
            draws=self.draws,
            stop=self.stop,
        )
