"""Projected gradient descent: many small sign steps inside the box, from random starts; the worst iterate is kept."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.attacks._ascent import Loss, allowed, ascent, check, check_differentiable
from levelhead.predictor import Predictor
from levelhead.types import Reference, Targets


@dataclass(frozen=True)
class PGD:
    """x <- clip(x + step_size sign(grad_x loss)), `steps` times, within eps of where it began. arXiv 1706.06083.

    eps           radius in the largest coordinate, in the units of x (pixels in [0, 1]).
    step_size     None: 2.5 eps / steps, or eps for a single step.
    restarts      runs from different starts.
    random_start  start uniformly in the box instead of at x.
    bounds, loss, draws  as in FGSM, which is steps=1, random_start=False.

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
    bounds: tuple[float, float] = (0.0, 1.0)
    loss: Loss = "ce"
    draws: int = 1

    def __post_init__(self) -> None:
        check("PGD", eps=self.eps, bounds=self.bounds, draws=self.draws, loss=self.loss)
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"PGD: {name} must be at least 1, got {getattr(self, name)}")
        if self.step_size is not None and self.step_size <= 0:
            raise ValueError(f"PGD: step_size must be positive, or None, got {self.step_size}")
        if self.restarts > 1 and not self.random_start:
            raise ValueError("PGD: restarts without random_start would repeat the same run; set random_start=True")

    def __call__(
        self, predictor: Predictor, x: Float[Tensor, "batch *input"], y: Targets, generator: torch.Generator
    ) -> Float[Tensor, "batch *input"]:
        """See `Attack`. Starts are drawn from `generator`, on its device."""
        check_differentiable(predictor)
        size = self.step_size
        if size is None:
            size = self.eps if self.steps == 1 else 2.5 * self.eps / self.steps
        worst, reached = x.detach().clone(), torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        for _ in range(self.restarts):
            moved = self._start(x.detach(), generator)
            for step in range(self.steps + 1):
                found = ascent(predictor, moved, y, loss=self.loss, draws=self.draws)
                if step > 0:  # a start is no iterate: with one step this is FGSM
                    better = found.margin > reached
                    reached = torch.where(better, found.margin, reached)
                    worst = torch.where(rearrange(better, f"b -> b {'1 ' * (x.ndim - 1)}"), moved, worst)
                moved = allowed(moved + size * found.gradient.sign(), x, self.eps, self.bounds)
        return worst.detach()

    def _start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if not self.random_start:
            return x
        noise = torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
        return allowed(x + self.eps * (2 * noise - 1), x, self.eps, self.bounds)
