"""Two interleaved half circles in the plane, with a ring far from both: the toy of pictures of uncertainty."""

import math

import torch

from levelhead.likelihood import Categorical
from levelhead.tasks.split import Split, unlabelled
from levelhead.tasks.task import Task


def two_moons(n: int = 500, *, noise: float = 0.1, seed: int = 0) -> Task:
    """`n` training points, and as many to val, calibration and test together (1 : 1 : 2).

    Class 0 is (cos t, sin t), class 1 is (1 - cos t, 1/2 - sin t), t uniform in [0, pi], plus normal noise of standard
    deviation `noise`. Out of distribution: a ring of radius 4 around the middle. Raises ValueError for n below 16.
    """
    if n < 16:
        raise ValueError(f"two_moons: n must be at least 16, got {n}")
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, count: int) -> Split:
        y = torch.arange(count) % 2
        angle = math.pi * torch.rand(count, generator=generator)
        outer = torch.stack([angle.cos(), angle.sin()], dim=1)
        inner = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
        clean = torch.where((y == 0).unsqueeze(1), outer, inner)
        return Split(name, clean + noise * torch.randn(count, 2, generator=generator), y)

    def ring(count: int) -> Split:
        angle = 2 * math.pi * torch.rand(count, generator=generator)
        middle = torch.tensor([0.5, 0.25])
        return unlabelled("ring", middle + 4 * torch.stack([angle.cos(), angle.sin()], dim=1))

    return Task(
        name="two-moons",
        train=draw("train", n),
        val=draw("val", n // 4),
        calibration=draw("calibration", n // 4),
        test=draw("test", n // 2),
        ood={"ring": ring(n // 2)},
        likelihood=Categorical(2),
        args={"n": n, "noise": noise, "seed": seed},
    )
