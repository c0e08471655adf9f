"""Noiseless Bayesian optimisation: fit a surrogate to what is known, try the point that promises most, repeat."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.bayesian_optimisation.acquisition import expected_improvement, upper_bound
from levelhead.bayesian_optimisation.maximise import maximise
from levelhead.bayesian_optimisation.surrogate import Belief, Surrogate
from levelhead.nomu.bounds import mean_width_factor

WIDTH_POINTS = 20_000
MOST_DOUBLINGS = 15
FIRST_RADIUS, LAST_RADIUS = 0.0625, 0.01

Objective = Callable[[Tensor], Tensor]  # (point, dimension) in [-1, 1] -> (point,)


class History(NamedTuple):
    """What was tried, in order, the start among it.

    x  (trial, dimension) in [-1, 1]; y (trial,).
    c  (step,): the factor of the bound with which each step after the start was chosen.
    """

    x: Float[Tensor, "trial dimension"]
    y: Float[Tensor, " trial"]
    c: tuple[float, ...]

    @property
    def best(self) -> Float[Tensor, " trial"]:
        """The largest value known after each trial."""
        return self.y.cummax(0).values


@dataclass(frozen=True)
class Rule:
    """How the next point is chosen.

    acquisition  "bound": mean + c std. "improvement": expected improvement.
    budget   c is set once, by the first surrogate, so that the mean of 2 c std over the box is `budget` standard
             deviations of the values at the start; None, or where these are all equal: c is 1.
    dynamic  a proposal within a radius of a known point would teach nothing: c is doubled for this step, at most 15
             times, until it is not. The radius falls geometrically from 0.0625 to 0.01 in [-1, 1]^d.

    Heiss et al., arXiv 2102.13640.
    """

    acquisition: Literal["bound", "improvement"] = "bound"
    budget: float | None = 0.5
    dynamic: bool = True

    def __post_init__(self) -> None:
        if self.acquisition not in ("bound", "improvement"):
            raise ValueError(f"Rule: acquisition must be 'bound' or 'improvement', got {self.acquisition!r}")
        if self.budget is not None and not self.budget > 0:
            raise ValueError(f"Rule: budget must be positive, or None for c = 1; got {self.budget}")

    def factor(self, belief: Belief, y: Float[Tensor, " row"], num_dimensions: int, seed: int) -> float:
        """c, by the first surrogate."""
        if self.budget is None or not y.std() > 0:
            return 1.0
        generator = torch.Generator().manual_seed(seed)
        points = 2 * torch.rand(WIDTH_POINTS, num_dimensions, generator=generator) - 1
        with torch.no_grad():
            std = torch.cat([belief(part)[1] for part in points.split(2000)])
        return mean_width_factor(std, budget=self.budget * float(y.std()))

    def propose(
        self,
        belief: Belief,
        x: Float[Tensor, "row dimension"],
        y: Float[Tensor, " row"],
        *,
        c: float,
        radius: float,
        seed: int,
    ) -> tuple[Float[Tensor, " dimension"], float]:
        """The next point, and the factor with which it was chosen."""
        best, near = float(y.max()), x[y.topk(min(5, len(y))).indices]
        for _ in range(MOST_DOUBLINGS + 1):
            proposal = maximise(self.value(belief, c=c, best=best), x.shape[1], seed=seed, near=near)
            apart = float(torch.linalg.vector_norm(x - proposal, dim=1).min())
            if not self.dynamic or apart > radius:
                return proposal, c
            c = 2 * c
        return proposal, c / 2

    def value(self, belief: Belief, *, c: float, best: float) -> Callable[[Tensor], Tensor]:
        """What a point is worth; for the expected improvement c widens std."""

        def worth(points: Float[Tensor, "point dimension"]) -> Float[Tensor, " point"]:
            mean, std = belief(points)
            if self.acquisition == "bound":
                return upper_bound(mean, std, c=c)
            return expected_improvement(mean, c * std, best=best)

        return worth


def optimise(
    objective: Objective,
    num_dimensions: int,
    *,
    surrogate: Surrogate | None,
    rule: Rule = Rule(),
    start: int = 8,
    steps: int = 64,
    seed: int = 0,
) -> History:
    """Look for the largest value of `objective` on [-1, 1]^d: `start` uniform points, then `steps` chosen ones.

    The surrogate is fitted from scratch at every step; None tries uniform points, which is random search. Equal seeds
    start at equal points, whatever the surrogate. Raises ValueError for settings that mean nothing, and for an
    objective that does not give one number a point.
    """
    if num_dimensions < 1:
        raise ValueError(f"optimise: num_dimensions must be at least 1, got {num_dimensions}")
    if start < 2 or steps < 0:
        raise ValueError(f"optimise: wants at least 2 points at the start and no negative steps, got {start}, {steps}")
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(start, num_dimensions, generator=generator) - 1
    y, factors = objective(x).to(x), list[float]()
    if y.shape != (start,):
        raise ValueError(
            f"optimise: objective must give one number a point, shape ({start},) here; got {tuple(y.shape)}"
        )
    c = 1.0
    if surrogate is None:
        more = 2 * torch.rand(steps, num_dimensions, generator=generator) - 1
        return History(torch.cat([x, more]), torch.cat([y, objective(more).to(y)]), ())
    for step in range(steps):
        belief = surrogate(x, y, seed * 10_007 + step)
        if step == 0:
            c = rule.factor(belief, y, num_dimensions, seed)
        radius = FIRST_RADIUS * (LAST_RADIUS / FIRST_RADIUS) ** (step / steps)
        proposal, used = rule.propose(belief, x, y, c=c, radius=radius, seed=seed * 10_007 + step)
        factors.append(used)
        x = torch.cat([x, proposal[None]])
        y = torch.cat([y, objective(proposal[None]).to(y)])
    return History(x, y, tuple(factors))


def scaled(function: Objective, low: Float[Tensor, " dimension"], high: Float[Tensor, " dimension"]) -> Objective:
    """A function of a box in its own units, as one of [-1, 1]^d."""

    def on_cube(x: Float[Tensor, "point dimension"]) -> Float[Tensor, " point"]:
        return function(low + (high - low) * (x + 1) / 2)

    return on_cube
