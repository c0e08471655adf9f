"""Oriented stripes in noise: a tiny image task made in milliseconds, for tests and first steps."""

import math

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from levelhead.likelihood import Categorical
from levelhead.tasks.split import Split, unlabelled
from levelhead.tasks.task import Task

PERIOD = 4.0  # pixels from stripe to stripe


def stripes(
    n: int = 96,
    *,
    num_classes: int = 3,
    channels: int = 1,
    size: int = 8,
    noise: float = 0.2,
    seed: int = 0,
) -> Task:
    """`n` training images whose class is the direction of their stripes; checkers are the out-of-distribution set.

    pixel = 1/2 + 1/3 sin(2 pi (u cos a + v sin a) / 4 + phase) + noise * normal, with a = pi * class / num_classes and
    a random phase. Validation and calibration have n / 4 images each, test and checkers n / 2.
    Raises ValueError for fewer than four images a class.
    """
    if n < 4 * num_classes:
        raise ValueError(f"stripes: n must be at least 4 * num_classes = {4 * num_classes}, got {n}")
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, count: int) -> Split:
        y = torch.arange(count) % num_classes
        angle = math.pi * y / num_classes
        waves = [rearrange(wave, "n -> n 1 1") for wave in (angle.cos(), angle.sin())]
        return Split(name, pixels(waves[0], waves[1]), y)

    def pixels(across: Tensor, down: Tensor) -> UInt8[Tensor, "example channel height width"]:
        count = len(across)
        v, u = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        phase = rearrange(2 * math.pi * torch.rand(count, generator=generator), "n -> n 1 1")
        wave = torch.sin(2 * math.pi * (u * across + v * down) / PERIOD + phase)
        return noisy(wave)

    def noisy(wave: Tensor) -> UInt8[Tensor, "example channel height width"]:
        shape = (len(wave), channels, size, size)
        image = 0.5 + rearrange(wave, "n h w -> n 1 h w") / 3 + noise * torch.randn(shape, generator=generator)
        return (255 * image.clamp(0, 1)).round().to(torch.uint8)

    def checkers(count: int) -> Split:
        v, u = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        phase = torch.randint(2, (count, 1, 1), generator=generator)
        return unlabelled("checkers", noisy(((u + v + phase) % 2 * 2 - 1).float()))

    return Task(
        name="stripes",
        train=draw("train", n),
        val=draw("val", n // 4),
        calibration=draw("calibration", n // 4),
        test=draw("test", n // 2),
        ood={"checkers": checkers(n // 2)},
        likelihood=Categorical(num_classes),
        classes=tuple(f"{180 * c // num_classes} degrees" for c in range(num_classes)),
        args={
            "n": n,
            "num_classes": num_classes,
            "channels": channels,
            "size": size,
            "noise": noise,
            "seed": seed,
        },
    )
