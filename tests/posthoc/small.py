"""Tiny tasks and predictors that the tests of post-hoc steps share."""

import torch
from torch import Tensor, nn

from levelhead.likelihood import Categorical, Gaussian
from levelhead.network import Network
from levelhead.predictive import CategoricalMixture, GaussianMixture, Predictive
from levelhead.predictor import Point, Predictor
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task


def blobs(sizes: tuple[int, int, int, int] = (60, 12, 30, 20), *, num_classes: int = 3, spread: float = 1.0) -> Task:
    """Overlapping Gaussian blobs in the plane, one a class."""
    generator = torch.Generator().manual_seed(3)
    centres = 2 * torch.randn(num_classes, 2, generator=generator)
    splits = []
    for name, size in zip(("train", "val", "calibration", "test"), sizes, strict=True):
        y = torch.arange(size) % num_classes
        splits.append(Split(name, centres[y] + spread * torch.randn(size, 2, generator=generator), y))
    return Task("blobs", *splits, likelihood=Categorical(num_classes))


def line(sizes: tuple[int, int, int, int] = (50, 12, 40, 20), *, noise: float = 0.3, num_targets: int = 1) -> Task:
    """y = 3 + 2 sin(x) + noise, for each target with a phase of its own."""
    generator = torch.Generator().manual_seed(4)
    splits = []
    for name, size in zip(("train", "val", "calibration", "test"), sizes, strict=True):
        x = 2 * torch.randn(size, 1, generator=generator)
        phase = torch.arange(num_targets) * 0.7
        y = 3 + 2 * torch.sin(x + phase) + noise * torch.randn(size, num_targets, generator=generator)
        splits.append(Split(name, x, y))
    y = splits[0].y
    shift, scale = tuple(y.mean(0).tolist()), tuple(y.std(0).tolist())
    return Task("line", *splits, likelihood=Gaussian(num_targets, shift, scale))


def mlp(task: Task, *, width: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32) -> Network:
    """One hidden layer and a linear head, untrained."""
    torch.manual_seed(seed)
    inputs = task.train.x.shape[1]
    features = nn.Sequential(nn.Linear(inputs, width), nn.Tanh())
    return Network(features, nn.Linear(width, task.signature.num_outputs), task.signature, width=width).to(dtype)


def trained(network: Network, task: Task, *, steps: int = 150, lr: float = 0.05, weight_decay: float = 1e-3) -> Point:
    """Fitted by full-batch Adam: quick, and the same everywhere."""
    optimiser = torch.optim.Adam(network.parameters(), lr, weight_decay=weight_decay)
    network.train()
    like = next(network.parameters())
    for _ in range(steps):
        optimiser.zero_grad()
        y = task.train.y.to(like.dtype) if task.train.y.is_floating_point() else task.train.y
        network.likelihood.loss(network(task.train.x.to(like.dtype)), y).backward()
        optimiser.step()
    return Point(network)


def state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of everything a module holds."""
    return {name: value.clone() for name, value in module.state_dict().items()}


class Table(Predictor):
    """Says what it was told to say: the feature of a row is its place in the table."""

    def __init__(
        self, logits: Tensor | None = None, means: Tensor | None = None, variances: Tensor | None = None
    ) -> None:
        super().__init__()
        self.logits, self.means, self.variances = logits, means, variances

    def forward(self, x: Tensor) -> Predictive:
        rows = x[:, 0].long()
        if self.logits is not None:
            return CategoricalMixture(self.logits[:, rows])
        assert self.means is not None
        assert self.variances is not None
        return GaussianMixture(self.means[:, rows], self.variances[:, rows])

    def children_predictors(self) -> tuple[Predictor, ...]:
        return ()


def tabled(y: Tensor, sizes: tuple[int, int], *, num_classes: int | None = None, void: int | None = None) -> Task:
    """A task whose calibration and test rows are the first and the next rows of a table with these targets."""
    x = torch.arange(len(y), dtype=torch.float32)[:, None]
    first, second = sizes
    splits = [
        Split(name, x[rows], y[rows])
        for name, rows in (
            ("train", slice(0, 1)),
            ("val", slice(0, 1)),
            ("calibration", slice(0, first)),
            ("test", slice(first, first + second)),
        )
    ]
    likelihood = Gaussian(y.shape[-1], (0.0,) * y.shape[-1], (1.0,) * y.shape[-1])
    return Task(
        "table",
        *splits,
        likelihood=likelihood if num_classes is None else Categorical(num_classes, void),
        known_overlaps=True,
    )
