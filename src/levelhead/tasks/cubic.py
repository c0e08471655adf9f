"""One-dimensional regression on y = x^3 (Hernandez-Lobato & Adams, arXiv 1502.05336; deep ensembles, 1612.01474)."""

import torch

from levelhead.tasks.measure import gaussian
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task

NOISE = 3.0  # standard deviation of y


def cubic(n: int = 20, *, gap: bool = False, seed: int = 0) -> Task:
    """`n` training points with x uniform in [-4, 4] and y = x^3 + 3 * normal; `gap` leaves out |x| < 2.

    Val and calibration have `n` points of the same kind, test has 200. Shifted sets of 200 points: "outside" has |x|
    from 4 to 6; with `gap`, "gap" has |x| below 2. Raises ValueError for n below 4.
    """
    if n < 4:
        raise ValueError(f"cubic: n must be at least 4, got {n}")
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, count: int, low: float, high: float) -> Split:
        size = low + (high - low) * torch.rand(count, 1, generator=generator)
        sign = 2 * torch.randint(2, (count, 1), generator=generator) - 1
        x = size * sign
        return Split(name, x, x**3 + NOISE * torch.randn(count, 1, generator=generator))

    low = 2.0 if gap else 0.0
    train = draw("train", n, low, 4.0)
    shifts = {"outside": draw("outside", 200, 4.0, 6.0)}
    if gap:
        shifts["gap"] = draw("gap", 200, 0.0, 2.0)
    return Task(
        name="cubic",
        train=train,
        val=draw("val", n, low, 4.0),
        calibration=draw("calibration", n, low, 4.0),
        test=draw("test", 200, low, 4.0),
        shifts=shifts,
        likelihood=gaussian(train.y),
        args={"n": n, "gap": gap, "seed": seed},
    )
