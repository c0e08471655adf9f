"""Functions of one number without noise, known at a few points: where uncertainty is the model's alone."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.noiseless import Noiseless
from levelhead.tasks.measure import moments
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task

HELD_OUT = 32  # points each of val and calibration
GRID = 10_001  # points that the range of a function is measured on

Curve = Callable[[Tensor], Tensor]


def levy(x: Tensor) -> Tensor:
    """Levy's function of one variable, of [-10, 10] in its own units."""
    w = 1 + (10 * x - 1) / 4
    return (math.pi * w).sin().square() + (w - 1).square() * (1 + (2 * math.pi * w).sin().square())


def forrester(x: Tensor) -> Tensor:
    """(6 z - 2)^2 sin(12 z - 4) for z in [0, 1]."""
    z = (x + 1) / 2
    return (6 * z - 2).square() * (12 * z - 4).sin()


CURVES: dict[str, Curve] = {
    "abs": torch.abs,
    "step": lambda x: (x > 0).to(x),
    "kink": lambda x: torch.where(x < 0, 0.25 * x, 1.5 * x),
    "square": torch.square,
    "cubic": lambda x: x**3,
    "sine": lambda x: (2 * math.pi * x).sin(),
    "forrester": forrester,
    "levy": levy,
}
NAMES = tuple(CURVES)


def function(name: str, *, n: int = 8, num_test: int = 500, seed: int = 0) -> Task:
    """`n` exact values of a function at points uniform in [-1, 1]; the function is scaled to the range [-1, 1].

    name  abs, step (0 then 1), kink (slopes 1/4 and 3/2), square, cubic, sine (two periods), forrester or levy.

    Test points are equally apart over the domain, val and calibration points uniform. The likelihood is `Noiseless`.
    Raises ValueError for n below 2 or an unknown name.
    """
    if name not in CURVES:
        raise ValueError(f"function: name must be one of {', '.join(NAMES)}, got {name!r}")
    if n < 2:
        raise ValueError(f"function: n must be at least 2, got {n}")
    generator = torch.Generator().manual_seed(seed)
    curve = CURVES[name]
    grid = curve(torch.linspace(-1, 1, GRID, dtype=torch.float64))
    low, high = float(grid.min()), float(grid.max())

    def split(kind: str, x: Float[Tensor, "point 1"]) -> Split:
        y = 2 * (curve(x.double()) - low) / (high - low) - 1
        return Split(kind, x, y.float())

    def drawn(kind: str, count: int) -> Split:
        return split(kind, 2 * torch.rand(count, 1, generator=generator) - 1)

    train = drawn("train", n)
    shift, scale = moments(train.y)
    return Task(
        name=f"function/{name}",
        train=train,
        val=drawn("val", HELD_OUT),
        calibration=drawn("calibration", HELD_OUT),
        test=split("test", torch.linspace(-1, 1, num_test).unsqueeze(1)),
        likelihood=Noiseless(1, shift, scale),
        args={"n": n, "num_test": num_test, "seed": seed},
    )
