"""Four LeNets on Fashion-MNIST, on two cores, beside a plain loop and torch-uncertainty; the cost of our loop.

We fit members side by side in two processes of one thread. The rivals train in one process: the loop one member after
the other, on both cores; torch-uncertainty's routine all of them on each batch, on one thread like each process of ours
(`deep_ensemble_both_cores` gives it two). All have float32, SGD with momentum, batches of 128 in a fresh order each
epoch, the same layers from the same initialisation scheme.
"""

import functools
import logging
import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.harness import Contest, Rival
from levelhead.backbones.lenet import LeNet
from levelhead.backbones.resnet import ResNet
from levelhead.likelihood import Categorical
from levelhead.recipe import DeepEnsemble, Recipe
from levelhead.samplers.sgd import SGD
from levelhead.tasks.fashion_mnist import CLASSES, fashion_mnist
from levelhead.tasks.split import Split, as_float
from levelhead.tasks.task import Task
from levelhead.training import Run, Runtime, train

MEMBERS, BATCH, CORES = 4, 128, 2
RATE, MOMENTUM, DECAY = 0.02, 0.9, 5e-4
EPOCHS, QUICK_EPOCHS, QUICK_IMAGES = 3, 1, 1280
STEPS, QUICK_STEPS = 20, 2  # of ResNet-20, a turn
TORCH_UNCERTAINTY = ("torch_uncertainty", "lightning", "rich")


def contests(*, quick: bool) -> Iterator[Contest]:
    """The ensemble against both rivals, and the loop against its own arithmetic."""
    task = all_of_fashion_mnist(QUICK_IMAGES if quick else None)
    epochs = QUICK_EPOCHS if quick else EPOCHS
    warm_up()
    yield Contest(
        functools.partial(ours, task, epochs),
        {
            "loader": Rival(
                functools.partial(loader, task, epochs),
                threads=CORES,
                what=f"DataLoader loop, one process, {CORES} threads",
            ),
            "torch_uncertainty": Rival(
                functools.partial(torch_uncertainty, task, epochs),
                needs=TORCH_UNCERTAINTY,
                what="its routine and trainer, one process, one thread",
            ),
        },
        warm_up=False,
    )
    yield overhead(task, QUICK_STEPS if quick else STEPS)


def warm_up() -> None:
    """What happens once in a process and is no training: imports, and the process from which workers are forked."""
    small = all_of_fashion_mnist(2 * BATCH)
    ours(small, 1)
    if not Rival(warm_up, needs=TORCH_UNCERTAINTY).missing:
        torch_uncertainty(small, 1)


def all_of_fashion_mnist(size: int | None) -> Task:
    """The 60,000 official training images (or `size` of them); what else a task must have comes from the test file."""
    known = fashion_mnist()
    train = torch.cat([split.x for split in (known.train, known.val, known.calibration)])
    labels = torch.cat([split.y for split in (known.train, known.val, known.calibration)])
    test = known.test
    return Task(
        name="all-of-fashion-mnist",
        train=Split("train", train[:size], labels[:size]),
        val=test.take(torch.arange(0, 1000), name="val"),
        calibration=test.take(torch.arange(1000, 2000), name="calibration"),
        test=test.take(torch.arange(2000, len(test))),
        likelihood=Categorical(len(CLASSES)),
        classes=CLASSES,
        known_overlaps=True,
    )


def ours(task: Task, epochs: int) -> None:
    """The call a user writes; starting the processes is part of it."""
    sampler = SGD(epochs=epochs, batch_size=BATCH, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, schedule="constant")
    ensemble = DeepEnsemble(member=Recipe(backbone=LeNet(), sampler=sampler), size=MEMBERS)
    ensemble.fit(task, seed=0, runtime=Runtime(workers=CORES))


def loader(task: Task, epochs: int, *, build: Callable[[Task], nn.Module] | None = None) -> None:
    """What a careful user writes: everything in memory as float32, no worker processes, nothing logged.

    `build` makes a network that returns logits (*, batch, class); None is torch's own modules.
    """
    data = DataLoader(TensorDataset(as_float(task.train.x), task.train.y), batch_size=BATCH, shuffle=True)
    for _ in range(MEMBERS):
        network = (build or lenet)(task)
        optimiser = sgd(network)
        for _ in range(epochs):
            for x, y in data:
                optimiser.zero_grad(set_to_none=True)
                F.cross_entropy(network(x), y).backward()
                optimiser.step()


def torch_uncertainty(task: Task, epochs: int) -> None:
    """Its deep ensemble through its own routine and trainer, with logs, bars and checkpoints switched off."""
    from torch_uncertainty.methods import deep_ensembles
    from torch_uncertainty.routines import ClassificationRoutine
    from torch_uncertainty.transforms import RepeatTarget
    from torch_uncertainty.utils import TUTrainer

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    ensemble = deep_ensembles([lenet(task) for _ in range(MEMBERS)])
    routine = ClassificationRoutine(
        ensemble,
        len(CLASSES),
        nn.CrossEntropyLoss(),
        is_ensemble=True,
        format_batch_fn=RepeatTarget(MEMBERS),
        optim_recipe=sgd(ensemble),
    )
    trainer = TUTrainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = DataLoader(TensorDataset(as_float(task.train.x), task.train.y), batch_size=BATCH, shuffle=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that data come without worker processes
        trainer.fit(routine, data)


def sgd(network: nn.Module) -> torch.optim.SGD:
    """The same optimiser for everybody."""
    return torch.optim.SGD(network.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)


class Standardise(nn.Module):
    """(x - mean) / std with two numbers."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def lenet(task: Task) -> nn.Sequential:
    """LeNet-5 as our backbone has it, in torch's own modules."""
    (mean,), (std,) = task.signature.mean, task.signature.std
    return nn.Sequential(
        Standardise(mean, std),
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, len(CLASSES)),
    )


def overhead(task: Task, steps: int) -> Contest:
    """An epoch of our loop on `steps` batches of ResNet-20, beside the bare steps on one batch that lies ready."""
    small = Task(
        name="some-of-fashion-mnist",
        train=task.train.take(steps * BATCH),
        val=task.val,
        calibration=task.calibration,
        test=task.test,
        likelihood=task.likelihood,
        known_overlaps=True,
    )
    sampler = SGD(epochs=1, batch_size=BATCH, lr=RATE)
    network = Recipe(backbone=ResNet(depth=20)).build(small)
    batch = next(small.train.ordered(BATCH))
    bare = nn.Sequential(network.features, network.head).train()
    optimiser = sgd(bare)

    def total() -> None:
        train(network, small, (), sampler, Run(0))

    def raw() -> None:
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(bare(batch.x), batch.y).backward()
            optimiser.step()

    return Contest(total, {"overhead": Rival(raw, what=f"forward, backward and step, {steps} times, ResNet-20")})
