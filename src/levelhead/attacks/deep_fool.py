"""DeepFool: the nearest error of a predictor that is taken to be linear, again and again."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.attacks._ball import Norm, along, check_bounds, check_norm, unit
from levelhead.attacks._min_norm import MinNorm, MinNormResult, Nearest
from levelhead.attacks._victim import Slopes, Victim, check_counts
from levelhead.types import Reference


@dataclass(frozen=True)
class DeepFool(MinNorm):
    """r <- r + |f_k| / |w_k|_2^2 w_k,  x' = clip(x + 1.02 r),  until the predictor errs at x'. arXiv 1511.04599.

    f_k = log p_k - log p_y and w_k = grad_x f_k at x'; k is the class of smallest |f_k| / |w_k|_2. For norm "linf" the
    step is |f_k| / |w_k|_1 sign(w_k), and k is the class of smallest |f_k| / |w_k|_1.

    norm        of the distance.
    steps       at most; a row rests when the predictor errs on it.
    overshoot   0.02: how far over the linear boundary x' is.
    candidates  the most likely wrong classes at x are considered, so many.
    draws       calls of a stochastic predictor whose margin decides; slopes are of one call.

    Inputs that have reached a bound are left out of w_k where it points over it. Rows that are wrong already stay.
    x (batch, *input), labels y (batch,).
    Raises CannotCompose for predictors without a gradient in x, or beliefs that are not about one label a row.
    """

    reference: ClassVar = Reference(
        "Moosavi-Dezfooli, Fawzi & Frossard",
        2016,
        arxiv="1511.04599",
        title="DeepFool: a simple and accurate method to fool deep neural networks",
    )
    norm: Norm = "l2"
    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10
    bounds: tuple[float, float] = (0.0, 1.0)
    draws: int = 1

    def __post_init__(self) -> None:
        check_norm("DeepFool", self.norm)
        check_bounds("DeepFool", self.bounds)
        check_counts("DeepFool", steps=self.steps, candidates=self.candidates, draws=self.draws)
        if not self.overshoot > 0:
            raise ValueError(f"DeepFool: overshoot must be positive, or x' stays on the boundary; got {self.overshoot}")

    def search(self, victim: Victim) -> MinNormResult:
        """`nearest` of rows that are already faced."""
        found = Nearest(victim, self.norm, draws=self.draws)
        rows = found.todo
        if not len(rows):
            return found.result
        classes = victim.others(rows, self.candidates)
        moved, change = victim.x[rows], torch.zeros_like(victim.x[rows])
        for _ in range(self.steps):
            change = change + self.step(self.inward(victim.slopes(moved, rows, classes), moved))
            moved = torch.clamp(victim.x[rows] + (1 + self.overshoot) * change, *self.bounds)
            margin = victim.margin(moved, rows, draws=self.draws)
            found.keep(rows, moved, margin)
            left = ~(margin > 0)
            rows, classes, moved, change = (t[left] for t in (rows, classes, moved, change))
            if not len(rows):
                break
        return found.result

    def inward(self, slopes: Slopes, moved: Float[Tensor, "row *input"]) -> Slopes:
        """Without what would push an input over a bound that it has reached.

        A step would otherwise fall short by what is clipped, and the next one again: ever nearer, and never over.
        """
        low, high = self.bounds
        up = rearrange(moved < high, "row ... -> row 1 ...")
        down = rearrange(moved > low, "row ... -> row 1 ...")
        free = torch.where(slopes.gradients > 0, up, down)
        return slopes._replace(gradients=slopes.gradients * free)

    def step(self, slopes: Slopes) -> Float[Tensor, "row *input"]:
        """The shortest step to one of the linear boundaries; zero where nothing slopes."""
        gradients = torch.nan_to_num(slopes.gradients)
        tiny = torch.finfo(gradients.dtype).tiny
        dual = torch.linalg.vector_norm(gradients.flatten(2), ord=1 if self.norm == "linf" else 2, dim=-1)
        away = torch.where(dual > 0, slopes.gaps.abs() / dual.clamp_min(tiny), torch.inf)
        reach, nearest = away.min(dim=1)
        slope = gradients[torch.arange(len(reach), device=reach.device), nearest]
        push = slope.sign() if self.norm == "linf" else unit(slope, "l2")
        return along(torch.nan_to_num(reach, posinf=0.0), push) * push
