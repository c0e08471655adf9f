"""A small predictor whose loss is not linear in x, and images for it."""

import torch
from linear import Linear
from torch import Tensor, nn

from levelhead.predictive import CategoricalMixture


class Bent(Linear):
    """Three classes (or others) on 4 x 4 images."""

    def __init__(self, classes: int = 3, scale: float = 4.0, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, classes))
            for parameter in self.net.parameters():
                parameter.data *= scale

    def forward(self, x: Tensor) -> CategoricalMixture:
        return CategoricalMixture(self.net(x)[None])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def right(predictor: Linear, x: Tensor, y: Tensor) -> Tensor:
    return predictor(x).label == y
