"""The momentum iterative method: PGD whose direction remembers its earlier gradients, for better transfer."""

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
class MIM(WithinBall):
    """m <- momentum m + g / |g|_1,  x <- Pi(x + step_size s(m)),  g = grad_x loss. arXiv 1710.06081.

    s(m) = sign(m) for norm "linf", m / |m| for "l2". momentum 0 is PGD.

    step_size  None: eps / steps as published, and eps is reached.
    eps, norm, bounds, loss, draws  as in FGSM; stop as in PGD.

    Starts at x. Each row keeps the iterate of largest margin. x (batch, *input), labels y (batch,).
    Raises CannotCompose for predictors without a gradient in x, or beliefs that are not about one label a row.
    """

    reference: ClassVar = Reference(
        "Dong et al.", 2018, arxiv="1710.06081", title="Boosting adversarial attacks with momentum"
    )
    eps: float = 8 / 255
    steps: int = 10
    step_size: float | None = None
    momentum: float = 1.0
    norm: Norm = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    loss: Loss = "ce"
    draws: int = 1
    stop: bool = False

    def __post_init__(self) -> None:
        self.ball.check("MIM")
        check_loss("MIM", self.loss)
        check_counts("MIM", steps=self.steps, draws=self.draws)
        check_size("MIM", self.step_size)
        if not self.momentum >= 0:
            raise ValueError(f"MIM: momentum must not be negative, got {self.momentum}")

    def on(self, victim: Victim) -> Float[Tensor, "batch *input"]:
        """See `Attack`."""
        return walk(
            victim,
            self.ball,
            steps=self.steps,
            size=self.eps / self.steps if self.step_size is None else self.step_size,
            restarts=1,
            random_start=False,
            loss=self.loss,
            draws=self.draws,
            stop=self.stop,
            momentum=self.momentum,
        )
