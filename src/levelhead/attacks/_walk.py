"""The walk that PGD and its form with momentum share: steps of one size, each back into the ball."""

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.attacks._ball import Ball, along
from levelhead.attacks._loss import Loss
from levelhead.attacks._victim import Victim, Worst


def walk(
    victim: Victim,
    ball: Ball,
    *,
    steps: int,
    size: float | None,
    restarts: int,
    random_start: bool,
    loss: Loss,
    draws: int,
    stop: bool,
    momentum: float | None = None,
) -> Float[Tensor, "batch *input"]:
    """The iterate of largest margin of each row; a start is no iterate. size None: 2.5 eps / steps, or eps for one."""
    if size is None:
        size = ball.eps if steps == 1 else 2.5 * ball.eps / steps
    worst, rows = Worst(victim.x), victim.rows
    for _ in range(restarts):
        if not len(rows):
            break
        active, origin = rows, victim.x[rows]
        moved = ball.start(origin, victim.streams, rows) if random_start else origin
        drift = torch.zeros_like(moved)
        for step in range(steps):
            found = victim.ascent(moved, active, loss=loss, draws=draws)
            push = found.gradient
            if momentum is not None:
                drift = momentum * drift + mean_sized(push)
                push = drift
            if step > 0:  # a start is no iterate: with one step this is FGSM
                worst.keep(active, moved, found.margin)
                if stop:
                    left = worst.margin[active] <= 0
                    active, origin, moved, drift, push = (t[left] for t in (active, origin, moved, drift, push))
                    if not len(active):
                        break
            moved = ball.project(moved + size * ball.steepest(push), origin)
        if len(active):
            worst.keep(active, moved, victim.margin(moved, active, draws=draws))
        if stop:
            rows = worst.standing(rows)
    return worst.x


def mean_sized(gradient: Float[Tensor, "row *input"]) -> Float[Tensor, "row *input"]:
    """g / |g|_1 of each row; zero rows stay zero."""
    gradient = torch.nan_to_num(gradient)
    return gradient / along(gradient.flatten(1).abs().sum(1).clamp_min(torch.finfo(gradient.dtype).tiny), gradient)


def check_size(name: str, step_size: float | None) -> None:
    """ValueError for steps that lead nowhere."""
    if step_size is not None and step_size <= 0:
        raise ValueError(f"{name}: step_size must be positive, or None, got {step_size}")
