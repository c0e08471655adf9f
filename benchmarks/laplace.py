"""Laplace on a ResNet-20 of 32 x 32 colour images, 10 and 100 classes, beside laplace-torch with its default backend.

A fit with one precision (no tuning), and a prediction linear in the weights with the probit link; one thread. The
networks are untrained: they are unsure of every row, which is when curvature costs us most. Its Kronecker factors want
the norms frozen, ours have their tensors too. Its diagonal takes as few rows at a time as fit into 2 GB, and where a
turn would last minutes it does a share of the rows, by which its seconds are divided.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.harness import Contest, Rival
from levelhead.backbones.resnet import ResNet
from levelhead.likelihood import Categorical, Signature
from levelhead.network import build
from levelhead.posthoc.laplace import Laplace
from levelhead.predictor import Point
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task

NEEDS = ("laplace",)
THEIRS = {"kronecker": "kron", "diagonal": "diag"}


class Work(NamedTuple):
    """A contest's sizes: rows we fit and predict, rows they do of these, and rows in their batches."""

    subset: str
    structure: str
    classes: int
    fitted: int
    predicted: int
    their_fitted: int
    their_predicted: int
    their_batch: int

    @property
    def name(self) -> str:
        """Its part of a row's name."""
        return f"{'last_layer' if self.subset == 'head' else self.structure}_{self.classes}"


WORKS = (
    Work("head", "kronecker", 10, 256, 256, 256, 256, 64),
    Work("head", "kronecker", 100, 256, 256, 256, 256, 64),
    Work("all", "kronecker", 10, 128, 16, 128, 8, 32),
    Work("all", "kronecker", 100, 16, 4, 16, 2, 8),
    Work("all", "diagonal", 10, 64, 16, 8, 8, 4),
    Work("all", "diagonal", 100, 8, 4, 2, 2, 1),
)


def contests(*, quick: bool) -> Iterator[Contest]:
    """A fit and a prediction of each work."""
    for work in WORKS:
        if quick:
            work = work._replace(fitted=2, predicted=2, their_fitted=2, their_predicted=1, their_batch=1)
        yield from of(work)


def of(work: Work) -> Iterator[Contest]:
    """Both contests of one work."""
    task, point = setting(work)
    step = Laplace(subset=work.subset, structure=work.structure, prior_precision=1.0)
    fitted: list[Any] = [step(point, task)]
    x = task.train.x[: work.predicted]

    def fit() -> object:
        fitted[0] = step(point, task)
        return fitted[0]

    @torch.no_grad()
    def predict() -> object:
        return fitted[0](x).probs

    their_fit, their_predict = rival(work, point, task)
    share = work.their_fitted / work.fitted, work.their_predicted / work.predicted
    what = "{0} of {1} rows" + f", {work.their_batch} at a time"
    yield Contest(
        fit,
        {
            f"{work.name}_fit": Rival(
                their_fit, needs=NEEDS, share=share[0], what=what.format(work.their_fitted, work.fitted)
            )
        },
        warm_up=False,
    )
    yield Contest(
        predict,
        {
            f"{work.name}_predict": Rival(
                their_predict, needs=NEEDS, share=share[1], what=f"{work.their_predicted} of {work.predicted} rows"
            )
        },
        warm_up=False,
    )


def setting(work: Work) -> tuple[Task, Point]:
    """Random images and labels, and a network for them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(max(work.fitted, work.predicted), 3, 32, 32, generator=generator)
    y = torch.arange(len(x)) % work.classes
    rows = Split("train", x, y)
    likelihood = Categorical(work.classes)
    task = Task("random", rows, rows, rows, rows, likelihood=likelihood, known_overlaps=True)
    signature = Signature((3, 32, 32), work.classes, likelihood, (0.5,) * 3, (0.25,) * 3)
    torch.manual_seed(0)
    return task, Point(build(ResNet(depth=20), (), signature))


def rival(work: Work, point: Point, task: Task) -> tuple[Callable[[], object], Callable[[], object]]:
    """Their fit and their prediction with the same weights."""
    network = copy.deepcopy(point.network)
    model = nn.Sequential(*network.features.children(), network.head).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # theirs flattens them by view
    if work.subset == "all" and work.structure == "kronecker":
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(False)
    x: Tensor = task.train.x
    rows = TensorDataset(x[: work.their_fitted], task.train.y[: work.their_fitted])
    kept: list[Any] = []

    def fit() -> object:
        posterior = import_module("laplace").Laplace(
            model,
            "classification",
            subset_of_weights="last_layer" if work.subset == "head" else "all",
            hessian_structure=THEIRS[work.structure],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            posterior.fit(DataLoader(rows, batch_size=work.their_batch))
        kept[:] = [posterior]
        return posterior

    def predict() -> object:
        if not kept:
            fit()
        return kept[0](x[: work.their_predicted], pred_type="glm", link_approx="probit")

    return fit, predict
