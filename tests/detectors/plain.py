"""Predictors whose features are their inputs, in float64, so that every score has a closed form."""

import torch
from torch import Tensor, nn

from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.predictor import Point
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task

CLASSES, WIDTH = 3, 5


def rows(n: int, seed: int, *, classes: int = CLASSES, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Correlated Gaussian rows around one centre a class, as float32 numbers."""
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(99)
    centres = 2 * torch.randn(classes, width, generator=fixed)
    mixing = torch.eye(width) + 0.4 * torch.randn(width, width, generator=fixed)
    y = torch.arange(n) % classes
    return centres[y] + torch.randn(n, width, generator=generator) @ mixing, y


def plain_task(n: int = 120, *, classes: int = CLASSES, width: int = WIDTH, **fields: object) -> Task:
    """Splits of such rows, and an outer set of wide noise."""
    sizes = {"train": n, "val": 12, "calibration": 30, "test": 60}
    splits = {
        name: Split(name, *rows(size, seed, classes=classes, width=width))
        for seed, (name, size) in enumerate(sizes.items())
    }
    far = 6 * torch.randn(40, width, generator=torch.Generator().manual_seed(7))
    outside = Split("noise", far, torch.full((40,), -1))
    return Task("plain", **splits, likelihood=Categorical(max(classes, 2)), ood={"noise": outside}, **fields)


def plain(*, classes: int = CLASSES, width: int = WIDTH, seed: int = 0, head: nn.Module | None = None) -> Point:
    """z = x, and a linear head unless another is given."""
    torch.manual_seed(seed)
    signature = Signature((width,), max(classes, 2), Categorical(max(classes, 2)))
    made = head or nn.Linear(width, max(classes, 2))
    return Point(Network(nn.Sequential(nn.Identity()), made, signature, width=width).double())


def float64(x: Tensor) -> Tensor:
    return x.double()
