"""What of `deep_ensemble` is due to the processes and what to the layers; torch-uncertainty on two threads. One epoch.

`loader_our_layers` is the same DataLoader loop around our own LeNet, whose weights lie with channels innermost: what is
left of the difference is processes, heap and data handling. `torch_uncertainty_two_threads` gives its routine both
cores, as two threads of one process: the most it can do with them.
"""

import functools
from collections.abc import Iterator

from torch import nn

from benchmarks.deep_ensemble import (
    CORES,
    QUICK_IMAGES,
    TORCH_UNCERTAINTY,
    all_of_fashion_mnist,
    loader,
    ours,
    torch_uncertainty,
    warm_up,
)
from benchmarks.harness import Contest, Rival
from levelhead.backbones.lenet import LeNet
from levelhead.tasks.task import Task

EPOCHS = 1


def contests(*, quick: bool) -> Iterator[Contest]:
    """Ours once, and the two rivals."""
    task = all_of_fashion_mnist(QUICK_IMAGES if quick else None)
    warm_up()
    yield Contest(
        functools.partial(ours, task, EPOCHS),
        {
            "loader_our_layers": Rival(
                functools.partial(loader, task, EPOCHS, build=our_lenet),
                threads=CORES,
                what=f"DataLoader loop around our LeNet, one process, {CORES} threads",
            ),
            "torch_uncertainty_two_threads": Rival(
                functools.partial(torch_uncertainty, task, EPOCHS),
                threads=CORES,
                needs=TORCH_UNCERTAINTY,
                what=f"its routine and trainer, one process, {CORES} threads",
            ),
        },
        warm_up=False,
    )


def our_lenet(task: Task) -> nn.Sequential:
    """The modules of our backbone, without what a Network does around them."""
    network = LeNet()(task.signature)
    return nn.Sequential(network.features, network.head)
