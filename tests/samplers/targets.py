"""Known densities as posteriors: an objective on the bias of one layer, of which each pair of numbers is one copy.

N objective(w) = U(w), N the number of training rows, so that exp(-U) is what a sampler must draw from.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from levelhead.forward import Forward, Objective
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.tasks.task import Split, Task
from levelhead.training import Run

N = 20
MEAN, COVARIANCE = torch.tensor([1.0, -2.0]), torch.tensor([[1.0, 0.9], [0.9, 1.5]])


def task(num_outputs: int) -> Task:
    """N rows of noise."""
    generator = torch.Generator().manual_seed(0)
    splits = {
        name: Split(name, torch.randn(N, 1, generator=generator), torch.arange(N) % num_outputs)
        for name in ("train", "val", "calibration", "test")
    }
    return Task(name="noise", likelihood=Categorical(num_outputs), **splits)


def setting(copies: int) -> tuple[Network, Task, Run]:
    """A network of which only the head's bias moves: `copies` pairs of numbers."""
    signature = Signature((1,), 2 * copies, Categorical(2 * copies))
    network = Network(nn.Identity(), nn.Linear(1, 2 * copies), signature, width=1)
    network.head.weight.requires_grad_(False)
    return network, task(2 * copies), Run(0)


def pairs(bias: Tensor) -> Tensor:
    """The copies: (..., copy, 2)."""
    return rearrange(bias, "... (copy two) -> ... copy two", two=2)


def gaussian(pair: Tensor) -> Tensor:
    """U of N(MEAN, COVARIANCE)."""
    away = pair - MEAN
    return 0.5 * (away @ COVARIANCE.inverse().to(away) * away).sum()


def banana(pair: Tensor) -> Tensor:
    """U of x ~ N(0, 1), y ~ N(x^2 / 2, 1): E y = 1/2, var y = 3/2, E x^2 y = 3/2."""
    x, y = pair.unbind(-1)
    return 0.5 * (x.square() + (y - x.square() / 2).square()).sum()


def objective(energy) -> Objective:
    """U / N of the head's bias."""

    def of(forward: Forward):
        return energy(pairs(forward.network.head.bias)) / N

    return of


def run_through(sampler, network: Network, task: Task, run: Run, of: Objective):
    """The state after all epochs."""
    state = sampler.init(network.train(), task, run)
    for epoch in range(sampler.epochs):
        for batch in task.train.batches(sampler.batch_size, run.generator(epoch)):
            sampler.step(state, of, batch)
    return state
