"""Auto-PGD: PGD with momentum that chooses its step sizes by whether the loss still rises."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.attacks._ball import Norm, along
from levelhead.attacks._loss import Loss, check_loss
from levelhead.attacks._victim import Victim, Worst, check_counts
from levelhead.attacks._within_ball import WithinBall
from levelhead.types import Reference

RISING = 0.75  # share of steps of an interval that must raise the loss
AHEAD = 0.75  # weight of the step against that of the last change


@dataclass(frozen=True)
class APGD(WithinBall):
    """z = Pi(x_k + eta s(g)),  x_{k+1} = Pi(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1})). arXiv 2003.01690.

    s as in PGD; eta = 2 eps at first. At checkpoints (after 22 % of the steps, then at intervals each 3 % of the steps
    shorter, no shorter than 6 %) a row halves its eta and goes on from its best point where the loss rose in at most
    three quarters of the interval's steps, or where eta was not halved at the last checkpoint and its best loss has not
    improved since. Starts on the surface of the ball.

    steps     gradient steps of a run.
    restarts  runs from different starts; later runs are of rows that still stand.
    targets   0: raise the loss of the label. Else one run towards each of so many most likely wrong classes.
    stop, eps, norm, bounds, loss, draws  as in PGD. "dlr" wants 3 classes, and 4 with targets.

    Each row keeps the point of largest margin. x (batch, *input), labels y (batch,). Raises ValueError for "dlr" of too
    few classes, CannotCompose for predictors without a gradient in x, or beliefs that are not about one label a row.
    """

    reference: ClassVar = Reference(
        "Croce & Hein",
        2020,
        arxiv="2003.01690",
        title="Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
    )
    eps: float = 8 / 255
    steps: int = 100
    restarts: int = 1
    targets: int = 0
    norm: Norm = "linf"
    bounds: tuple[float, float] = (0.0, 1.0)
    loss: Loss = "ce"
    draws: int = 1
    stop: bool = False

    def __post_init__(self) -> None:
        self.ball.check("APGD")
        check_loss("APGD", self.loss)
        check_counts("APGD", steps=self.steps, restarts=self.restarts, draws=self.draws)
        if self.targets < 0:
            raise ValueError(f"APGD: targets must be 0 (none) or a number of classes, got {self.targets}")

    def on(self, victim: Victim) -> Float[Tensor, "batch *input"]:
        """See `Attack`."""
        worst, rows = Worst(victim.x), victim.rows
        towards = victim.others(rows, self.targets) if self.targets else None
        for _ in range(self.restarts):
            for k in range(1 if towards is None else towards.shape[1]):
                if len(rows):
                    self._run(victim, rows, None if towards is None else towards[rows, k], worst)
                    rows = worst.standing(rows)
        return worst.x

    def _run(self, victim: Victim, rows: Tensor, other: Tensor | None, worst: Worst) -> None:
        state = self._begin(victim, rows, other, worst)
        gaps = iter(intervals(self.steps))
        interval = next(gaps)
        since = 0
        for step in range(self.steps):
            if self.stop:
                state = state.only(worst.margin[state.rows] <= 0)
            if not len(state.rows):
                return
            state = self._step(victim, state, worst, first=step == 0)
            since += 1
            if since == interval:
                state, since, interval = state.checked(interval), 0, next(gaps)

    def _begin(self, victim: Victim, rows: Tensor, other: Tensor | None, worst: Worst) -> "_State":
        origin = victim.x[rows]
        at = self.ball.edge(origin, victim.streams, rows)
        found = victim.ascent(at, rows, loss=self.loss, draws=self.draws, other=other)
        worst.keep(rows, at, found.margin)
        return _State(
            rows=rows,
            other=rows if other is None else other,
            origin=origin,
            at=at,
            before=at,
            gradient=found.gradient,
            loss=found.loss,
            best=at,
            best_gradient=found.gradient,
            best_loss=found.loss,
            size=torch.full_like(found.loss, 2 * self.eps),
            rises=torch.zeros_like(found.loss),
            halved=torch.ones_like(found.loss, dtype=torch.bool),
            checked_loss=found.loss,
        )

    def _step(self, victim: Victim, state: "_State", worst: Worst, *, first: bool) -> "_State":
        origin, at = state.origin, state.at
        ahead = self.ball.project(at + along(state.size, at) * self.ball.steepest(state.gradient), origin)
        if not first:
            ahead = self.ball.project(at + AHEAD * (ahead - at) + (1 - AHEAD) * (at - state.before), origin)
        other = state.other if self.targets else None
        found = victim.ascent(ahead, state.rows, loss=self.loss, draws=self.draws, other=other)
        worst.keep(state.rows, ahead, found.margin)
        better = found.loss > state.best_loss
        wide = along(better, at)
        return state._replace(
            at=ahead,
            before=at,
            gradient=found.gradient,
            loss=found.loss,
            best=torch.where(wide, ahead, state.best),
            best_gradient=torch.where(wide, found.gradient, state.best_gradient),
            best_loss=torch.where(better, found.loss, state.best_loss),
            rises=state.rises + (found.loss > state.loss),
        )


class _State(NamedTuple):
    """Where a run stands; the first axis of everything is the row."""

    rows: Int[Tensor, " row"]
    other: Int[Tensor, " row"]  # the class to go to, where there are targets
    origin: Float[Tensor, "row *input"]
    at: Float[Tensor, "row *input"]
    before: Float[Tensor, "row *input"]
    gradient: Float[Tensor, "row *input"]
    loss: Float[Tensor, " row"]
    best: Float[Tensor, "row *input"]
    best_gradient: Float[Tensor, "row *input"]
    best_loss: Float[Tensor, " row"]
    size: Float[Tensor, " row"]
    rises: Float[Tensor, " row"]  # steps since the checkpoint that raised the loss
    halved: Tensor  # bool (row,): whether the last checkpoint halved the size
    checked_loss: Float[Tensor, " row"]  # the best loss at the last checkpoint

    def only(self, left: Tensor) -> "_State":
        """Some of the rows."""
        return self if bool(left.all()) else _State(*(t[left] for t in self))

    def checked(self, interval: int) -> "_State":
        """After a checkpoint: rows that get nowhere halve their size and go back to their best point."""
        stuck = ~self.halved & (self.checked_loss >= self.best_loss)
        halve = (self.rises <= RISING * interval) | stuck
        wide = along(halve, self.at)
        return self._replace(
            at=torch.where(wide, self.best, self.at),
            gradient=torch.where(wide, self.best_gradient, self.gradient),
            loss=torch.where(halve, self.best_loss, self.loss),
            size=torch.where(halve, self.size / 2, self.size),
            rises=torch.zeros_like(self.rises),
            halved=halve,
            checked_loss=self.best_loss,
        )


def intervals(steps: int) -> list[int]:
    """Steps between checkpoints: 22 % of all, each next 3 % shorter, no shorter than 6 %; in sum more than the run."""
    interval, shorter, shortest = max(int(0.22 * steps), 1), max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
    found: list[int] = []
    while sum(found) <= steps:
        found.append(interval)
        interval = max(interval - shorter, shortest)
    return [*found, interval]
