"""The standard ensemble: different attacks one after the other, each on what still stands; the worst counts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.attacks._ball import Norm, length
from levelhead.attacks._victim import Attack, Victim, Worst, check_counts
from levelhead.attacks._within_ball import WithinBall
from levelhead.attacks.apgd import APGD
from levelhead.attacks.cw import CW
from levelhead.attacks.deep_fool import DeepFool
from levelhead.attacks.square import Square

TOLERANCE = 1e-6


@dataclass(frozen=True)
class StandardEnsemble(WithinBall):
    """APGD by cross-entropy, APGD by DLR towards the likeliest wrong classes, Square; for "l2" also DeepFool and CW.

    Each works on the rows that the predictor still gets right, from the random streams it would have alone, so that
    the ensemble errs wherever one of its members does. After AutoAttack (arXiv 2003.01690), without FAB.

    Three classes have no targeted DLR: untargeted instead; two have none at all: the margin. With draws > 1, for
    stochastic predictors, it is APGD by cross-entropy and by DLR alone, as AutoAttack's "rand".

    steps    of APGD; CW takes ten times as many a round.
    targets  classes that targeted DLR goes to.
    queries  of Square.
    eps, norm, bounds, draws  as in FGSM.

    Rows on which nothing succeeds keep the point of largest margin. x (batch, *input), labels y (batch,); Square joins
    for images only. Raises CannotCompose for predictors without a gradient in x, or beliefs not about one label a row.
    """

    reference: ClassVar = APGD.reference
    eps: float = 8 / 255
    norm: Norm = "linf"
    steps: int = 100
    targets: int = 9
    queries: int = 5000
    bounds: tuple[float, float] = (0.0, 1.0)
    draws: int = 1

    def __post_init__(self) -> None:
        self.ball.check("StandardEnsemble")
        check_counts("StandardEnsemble", steps=self.steps, targets=self.targets, queries=self.queries, draws=self.draws)

    def on(self, victim: Victim) -> Float[Tensor, "batch *input"]:
        """See `Attack`."""
        worst, rows = Worst(victim.x), victim.rows
        worst.keep(rows, victim.x, victim.margin(victim.x, rows, draws=self.draws))
        for member in self.members(victim):
            rows = worst.standing(rows)
            if not len(rows):
                break
            facing_rows = victim.only(rows)
            moved = member.on(facing_rows)
            margin = facing_rows.margin(moved, facing_rows.rows, draws=self.draws)
            outside = length(moved - facing_rows.x, self.norm) > self.eps + TOLERANCE  # an error too far away is none
            worst.keep(rows, moved, margin.masked_fill(outside, -torch.inf))
        return worst.x

    def members(self, victim: Victim) -> Sequence[Attack]:
        """The attacks, in their order."""
        with torch.no_grad():
            classes = victim.log_probs(victim.x[:1]).shape[-1]
        by_entropy = APGD(self.eps, self.steps, norm=self.norm, bounds=self.bounds, draws=self.draws, stop=True)
        by_ratio = replace(by_entropy, loss="dlr" if classes >= 3 else "margin")
        if self.draws > 1:
            return by_entropy, by_ratio
        if classes >= 4:
            by_ratio = replace(by_ratio, targets=self.targets)
        found: list[Attack] = [by_entropy, by_ratio]
        if victim.x.ndim == 4:
            found.append(Square(self.eps, self.queries, norm=self.norm, bounds=self.bounds))
        if self.norm == "l2":
            found += [DeepFool(bounds=self.bounds), CW(10 * self.steps, bounds=self.bounds)]
        return found
