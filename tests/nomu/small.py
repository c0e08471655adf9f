"""A tiny noise-free task and networks for it."""

import torch

from levelhead.backbones.mlp import MLP
from levelhead.network import Network, build
from levelhead.noiseless import Noiseless
from levelhead.passes import seeded
from levelhead.surgeries.side_network import SideNetwork
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task


def plane(n: int = 12, *, scale: float = 1.0, shift: float = 0.0, x_scale: float = 1.0) -> Task:
    """A smooth function of two numbers at `n` points; the same for every scale and shift of its units."""
    generator = torch.Generator().manual_seed(0)

    def split(name: str) -> Split:
        x = 2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1
        y = shift + scale * ((2 * x[:, :1]).sin() + 0.3 * x[:, 1:])
        return Split(name, (x_scale * x).float(), y.float())

    splits = {name: split(name) for name in ("train", "val", "calibration", "test")}
    y = splits["train"].y.double()
    likelihood = Noiseless(1, (float(y.mean()),), (float(y.std(correction=0)),))
    return Task(name="plane", likelihood=likelihood, **splits)


def beside(task: Task, *, hidden: tuple[int, ...] = (6,), detach: bool = False, batch_norm: bool = False) -> Network:
    """An MLP with a side network, the same for the same arguments."""
    with seeded(0):
        return build(MLP((5,), batch_norm=batch_norm), (SideNetwork(hidden=hidden, detach=detach),), task.signature)
