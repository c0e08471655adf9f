"""Carlini and Wagner's attack in L2: the smallest change that errs, the price of not erring searched for each row."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from levelhead.attacks._ball import along, check_bounds, length
from levelhead.attacks._min_norm import MinNorm, MinNormResult, Nearest
from levelhead.attacks._victim import Victim, check_counts
from levelhead.types import Reference

INSIDE = 1e-4  # share of the bounds that x keeps off them: at 0 and 1 atanh has no end, and near them tanh no slope
CHECKS = 10  # of progress, in each round
PROGRESS = 0.9999
BETAS, TINY = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class CW(MinNorm):
    """min_w |x' - x|_2^2 + c max(log p_y - max_{k != y} log p_k, -kappa),  x' = (tanh w + 1) / 2. arXiv 1608.04644.

    By Adam on w from x, for each of `rounds` values of c, a search for each row: ten times c until the predictor errs,
    then halfway between the last that failed and the last that succeeded. Each row keeps its nearest error.

    steps   of Adam a round; a row ends its round when a tenth of them lowered its loss by less than 0.01 %.
    rounds  of the search over c.
    c       the first one.
    lr      of Adam, in w.
    kappa   the margin that counts as success, in nats.
    bounds  of the inputs. draws as in FGSM.

    Rows that are wrong already stay. x (batch, *input), labels y (batch,).
    Raises CannotCompose for predictors without a gradient in x, or beliefs that are not about one label a row.
    """

    reference: ClassVar = Reference(
        "Carlini & Wagner", 2017, arxiv="1608.04644", title="Towards evaluating the robustness of neural networks"
    )
    steps: int = 1000
    rounds: int = 9
    c: float = 1e-3
    lr: float = 1e-2
    kappa: float = 0.0
    bounds: tuple[float, float] = (0.0, 1.0)
    draws: int = 1

    def __post_init__(self) -> None:
        check_bounds("CW", self.bounds)
        check_counts("CW", steps=self.steps, rounds=self.rounds, draws=self.draws)
        for name in ("c", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"CW: {name} must be positive, got {getattr(self, name)}")
        if self.kappa < 0:
            raise ValueError(f"CW: kappa must not be negative, got {self.kappa}")

    def search(self, victim: Victim) -> MinNormResult:
        """`nearest` of rows that are already faced."""
        found = Nearest(victim, "l2", draws=self.draws)
        rows = found.todo
        price = victim.x.new_full((len(rows),), self.c)
        low, high = torch.zeros_like(price), torch.full_like(price, torch.inf)
        for _ in range(self.rounds):
            if not len(rows):
                break
            won = self._round(victim, rows, price, found)
            high, low = torch.where(won, price, high), torch.where(won, low, price)
            price = torch.where(high.isfinite(), 0.5 * (low + high), 10 * price)
        return found.result

    def _round(self, victim: Victim, rows: Tensor, price: Tensor, found: Nearest) -> Tensor:
        """Adam for one price of each row; whether it met an error."""
        low, high = self.bounds
        half = 0.5 * (high - low)
        won = torch.zeros_like(price, dtype=torch.bool)
        place, x = torch.arange(len(rows), device=rows.device), victim.x[rows]
        w = torch.atanh(((x - low) / half - 1).clamp(-1 + 2 * INSIDE, 1 - 2 * INSIDE))
        first, second = torch.zeros_like(w), torch.zeros_like(w)
        before = recent = torch.full_like(price, torch.inf)
        every = max(1, self.steps // CHECKS)
        for step in range(1, self.steps + 1):
            bent = torch.tanh(w)
            moved = torch.clamp(low + half * (bent + 1), *self.bounds)
            seen = victim.ascent(moved, rows, loss="margin", draws=self.draws)
            change = moved - x
            sure = seen.margin >= self.kappa
            found.keep(rows, moved, torch.where(sure, seen.margin, -torch.inf))
            won[place] |= sure & (seen.margin > 0)
            pull = torch.where(seen.margin < self.kappa, price, 0.0)
            slope = (2 * change - along(pull, x) * torch.nan_to_num(seen.gradient)) * half * (1 - bent.square())
            first = BETAS[0] * first + (1 - BETAS[0]) * slope
            second = BETAS[1] * second + (1 - BETAS[1]) * slope.square()
            scale = (second / (1 - BETAS[1] ** step)).sqrt() + TINY
            w = w - self.lr * first / (1 - BETAS[0] ** step) / scale
            loss = length(change, "l2").square() + price * (-seen.margin).clamp_min(-self.kappa)
            recent = torch.minimum(recent, loss)
            if step % every == 0 and step < self.steps:
                left = recent <= PROGRESS * before
                if not bool(left.any()):
                    break
                kept = (rows, place, price, x, w, first, second, recent, loss)
                rows, place, price, x, w, first, second, before, recent = (t[left] for t in kept)
        return won
