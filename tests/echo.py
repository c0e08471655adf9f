"""Predictors whose beliefs are written in their inputs, and a task of such inputs: closed forms need no training."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.likelihood import Categorical, Gaussian
from levelhead.predictive import CategoricalMixture, GaussianMixture, Predictive
from levelhead.predictor import Predictor
from levelhead.tasks.split import Split, unlabelled
from levelhead.tasks.task import Task


class Echo(Predictor):
    """x (batch, member * class) are the logits."""

    def __init__(self, members: int = 1, noise: int | None = 7, density: bool = False) -> None:
        super().__init__()
        self.members = members
        self.noise = noise
        self.density = density
        self.calls: list[tuple[int, int | None]] = []
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        self.calls.append((len(x), self.noise))
        belief = CategoricalMixture(rearrange(x, "b (m k) -> m b k", m=self.members) + self.bias)
        return belief.with_log_density(-x[:, 0]) if self.density else belief

    def children_predictors(self) -> Sequence[Predictor]:
        return ()

    def with_noise(self, noise: int | None) -> "Echo":
        self.noise = noise
        return self


class EchoGaussian(Predictor):
    """x (batch, 2 * member) are means, then log variances, of one target."""

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        mean, log_variance = rearrange(x, "b (two m) -> two m b 1", two=2)
        return GaussianMixture(mean, log_variance.exp())

    def children_predictors(self) -> Sequence[Predictor]:
        return ()


def logits_task(n: int = 60, *, members: int = 1, num_classes: int = 3, seed: int = 0) -> Task:
    """Rows of random logits with labels drawn from nothing in particular, and a set of larger logits outside."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, scale: float = 1.0) -> Split:
        x = scale * torch.randn(n, members * num_classes, generator=generator)
        return Split(name, x, torch.randint(num_classes, (n,), generator=generator))

    outside = unlabelled("outside", 0.3 * torch.randn(n // 2, members * num_classes, generator=generator))
    splits = [draw(name) for name in ("train", "val", "calibration", "test")]
    return Task("logits", *splits, likelihood=Categorical(num_classes), ood={"outside": outside})


def moments_task(n: int = 60, *, members: int = 1, seed: int = 0) -> Task:
    """Rows of random moments, with targets."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str) -> Split:
        return Split(name, torch.randn(n, 2 * members, generator=generator), torch.randn(n, 1, generator=generator))

    splits = [draw(name) for name in ("train", "val", "calibration", "test")]
    return Task("moments", *splits, likelihood=Gaussian())
