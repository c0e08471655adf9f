"""Functions of one or two numbers without noise, known at a few points: all uncertainty is the model's."""

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
GRID = {1: 10_001, 2: 301}  # points along each input, on which the range of a function is measured

Curve = Callable[..., Tensor]  # a tensor an input to the value


def levy(x: Tensor) -> Tensor:
    """Levy's function of one variable, of [-10, 10] in its own units."""
    w = 1 + (10 * x - 1) / 4
    return (math.pi * w).sin().square() + (w - 1).square() * (1 + (2 * math.pi * w).sin().square())


def forrester(x: Tensor) -> Tensor:
    """(6 z - 2)^2 sin(12 z - 4) for z in [0, 1]."""
    z = (x + 1) / 2
    return (6 * z - 2).square() * (12 * z - 4).sin()


def branin(x: Tensor, y: Tensor) -> Tensor:
    """Branin's function, of [-5, 10] x [0, 15]."""
    a, b = 7.5 * x + 2.5, 7.5 * (y + 1)
    valley = b - 5.1 / (4 * math.pi**2) * a.square() + 5 / math.pi * a - 6
    return valley.square() + 10 * (1 - 1 / (8 * math.pi)) * a.cos() + 10


def camel(x: Tensor, y: Tensor) -> Tensor:
    """The camel's six humps, of [-3, 3] x [-2, 2]."""
    a, b = 3 * x, 2 * y
    return (4 - 2.1 * a.square() + a**4 / 3) * a.square() + a * b + (4 * b.square() - 4) * b.square()


def styblinski(x: Tensor, y: Tensor) -> Tensor:
    """Styblinski and Tang's function, of [-5, 5] x [-5, 5]."""
    return sum(((5 * t) ** 4 - 16 * (5 * t).square() + 25 * t for t in (x, y)), torch.zeros_like(x)) / 2


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
SURFACES: dict[str, Curve] = {"branin": branin, "camel": camel, "styblinski": styblinski}
NAMES = (*CURVES, *SURFACES)


def function(name: str, *, n: int = 8, num_test: int = 500, seed: int = 0) -> Task:
    """`n` exact values of a function at points uniform in [-1, 1]^d; the function is scaled to the range [-1, 1].

    name  of one number: abs, step (0 then 1), kink (slopes 1/4 and 3/2), square, cubic, sine (two periods), forrester,
          levy; of two: branin, camel, styblinski.

    Test points (about `num_test`) are equally apart over the domain, val and calibration points uniform. The likelihood
    is `Noiseless`. Raises ValueError for n below 2 or an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"function: name must be one of {', '.join(NAMES)}, got {name!r}")
    if n < 2:
        raise ValueError(f"function: n must be at least 2, got {n}")
    generator = torch.Generator().manual_seed(seed)
    num_inputs = 1 if name in CURVES else 2
    curve = (CURVES | SURFACES)[name]

    def value(x: Float[Tensor, "point input"]) -> Float[Tensor, "point 1"]:
        return curve(*x.double().split(1, dim=1))

    values = value(grid(GRID[num_inputs], num_inputs))
    low, high = float(values.min()), float(values.max())

    def split(kind: str, x: Float[Tensor, "point input"]) -> Split:
        return Split(kind, x, (2 * (value(x) - low) / (high - low) - 1).float())

    def drawn(kind: str, count: int) -> Split:
        return split(kind, 2 * torch.rand(count, num_inputs, generator=generator) - 1)

    train = drawn("train", n)
    shift, scale = moments(train.y)
    return Task(
        name=f"function/{name}",
        train=train,
        val=drawn("val", HELD_OUT),
        calibration=drawn("calibration", HELD_OUT),
        test=split("test", grid(round(num_test ** (1 / num_inputs)), num_inputs)),
        likelihood=Noiseless(1, shift, scale),
        args={"n": n, "num_test": num_test, "seed": seed},
    )


def grid(num: int, num_inputs: int) -> Float[Tensor, "point input"]:
    """Points equally apart over [-1, 1]^d, `num` along each input."""
    side = torch.linspace(-1, 1, num)
    return torch.cartesian_prod(*[side] * num_inputs).reshape(-1, num_inputs)
