"""Networks with every layer that curvature knows, and what plain differentiation says of them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from levelhead.likelihood import Categorical, Gaussian, Likelihood, Signature
from levelhead.network import Network

F64 = torch.float64


class Case(NamedTuple):
    """A network in float64, in training mode, and five rows."""

    network: Network
    x: Tensor

    def jacobian(self) -> Tensor:
        """d outputs / d parameters, (row, output, parameter), flat in the order of the parameters."""
        network = self.network
        modes = {module: module.training for module in network.modules()}
        network.eval()
        named = {name: p.detach() for name, p in network.named_parameters()}
        found = jacrev(lambda p: functional_call(network, p, (self.x,))[0])(named)
        for module, mode in modes.items():
            module.training = mode
        return torch.cat([found[name].flatten(2) for name in named], dim=-1)


def made(features: nn.Module, width: int, shape: tuple[int, ...], *, likelihood: Likelihood | None = None) -> Case:
    """The features with a linear head behind them."""
    torch.manual_seed(1)
    likelihood = likelihood or Categorical(3)
    signature = Signature(shape, likelihood.num_outputs, likelihood)
    head = nn.Linear(width, likelihood.num_outputs)
    network = Network(features, head, signature, width=width).to(F64)
    for parameter in network.parameters():  # scales and shifts too, which start at one and zero
        parameter.data = 0.5 * torch.randn_like(parameter)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.track_running_stats:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return Case(network, torch.randn(5, *shape, dtype=F64))


def flat(*layers: nn.Module) -> nn.Sequential:
    """Convolutions, and the mean over pixels."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Words(nn.Module):
    """Inputs rounded to words, embedded, and averaged."""

    def __init__(self, padding: int | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 3, padding_idx=padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.abs().long().clamp_max(3)).tanh().mean(1)


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


class Tied(nn.Module):
    """Two layers of one weight, with a bias each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


class Silent(nn.Module):
    """A layer that no pass reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.never = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x).tanh()


CASES = {
    "linear": lambda: made(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False)), 3, (4,)),
    "gaussian": lambda: made(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), 3, (4,), likelihood=Gaussian()),
    "conv": lambda: made(flat(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(inplace=True)), 4, (2, 7, 6)),
    "grouped": lambda: made(flat(nn.Conv2d(4, 6, (3, 2), groups=2, padding="same", dilation=2)), 6, (4, 5, 5)),
    "depthwise": lambda: made(flat(nn.Conv2d(3, 3, 3, groups=3, padding_mode="reflect", padding=1)), 3, (3, 4, 4)),
    "pointwise": lambda: made(flat(nn.Conv2d(2, 3, 1, stride=2), nn.Tanh()), 3, (2, 5, 5)),
    "conv1d": lambda: made(nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.Tanh(), nn.Flatten()), 12, (2, 4)),
    "batch norm": lambda: made(
        flat(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 2)), 3, (2, 5, 5)
    ),
    "batch norm of features": lambda: made(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh()), 3, (4,)),
    "group norm": lambda: made(flat(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh()), 4, (2, 5, 5)),
    "layer norm": lambda: made(nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh()), 5, (4,)),
    "layer norm of tokens": lambda: made(
        nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 4), nn.LayerNorm((2, 4)), nn.Flatten()), 8, (6,)
    ),
    "embedding": lambda: made(Words(), 3, (6,)),
    "padded embedding": lambda: made(Words(padding=0), 3, (6,)),
    "twice": lambda: made(Twice(), 4, (4,)),
    "tied": lambda: made(Tied(), 4, (4,)),
    "silent": lambda: made(Silent(), 3, (4,)),
}
