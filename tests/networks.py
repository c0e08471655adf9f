"""Small networks that many tests share: a plain one, one with members, one that draws, one with statistics."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from levelhead.declared import Conditional, Hint, Hyper, Membered, Stochastic
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network

SIGNATURE = Signature(input_shape=(4,), num_outputs=3, likelihood=Categorical(3))


class Scaled(Membered):
    """Multiplies its input by a vector of each member."""

    hints: ClassVar = {"scale": Hint(lr=0.5, decay=False)}

    def __init__(self, num_members: int, width: int) -> None:
        super().__init__()
        self.num_members = num_members
        self.scale = nn.Parameter(1 + 0.3 * torch.randn(num_members, width))

    def forward(self, x: Tensor) -> Tensor:
        return (self.by_member(x) * self.scale[:, None]).flatten(0, 1)


class Noisy(Stochastic):
    """Adds standard normal noise when it draws, and counts the rows it saw."""

    rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows = len(x)
        return x + torch.randn_like(x) if self.drawing else x


class Shifted(Conditional):
    """Adds the hyper-parameter of each row."""

    def __init__(self, num_members: int) -> None:
        super().__init__()
        self.num_members = num_members

    def forward(self, x: Tensor) -> Tensor:
        return x + self.condition_rows(len(x))


class Ranges(Hyper):
    """Means of one hyper-parameter of each member."""

    def __init__(self, means: list[float]) -> None:
        super().__init__()
        self.register_buffer("means", torch.tensor(means)[:, None])

    def mean(self) -> Tensor:
        return self.means


def network(*stages: nn.Module, num_members: int = 1, num_samples: int = 1) -> Network:
    """Linear(4, 5), the given stages, and a linear head."""
    made = Network(nn.Sequential(nn.Linear(4, 5), *stages), nn.Linear(5, 3), SIGNATURE, width=5)
    return made.declare(num_members=num_members, num_samples=num_samples)
