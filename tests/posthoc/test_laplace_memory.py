"""What a Laplace posterior takes at its peak: bytes of live tensors, counted operation by operation."""

import dataclasses
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from levelhead.backbones.resnet import ResNet
from levelhead.curvature import head_laplace
from levelhead.likelihood import Categorical
from levelhead.network import Network, build
from levelhead.posthoc.laplace import Laplace
from levelhead.predictor import Point
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose

MIB = 2**20


class Peak(TorchDispatchMode):
    """The largest number of bytes that tensors made inside held at one time; views count with what they view."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.most = 0
        self.held: dict[int, tuple[int, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and tensor.device.type == "cpu":
                self.add(tensor)
        return found

    def add(self, tensor: Tensor) -> None:
        place = tensor.untyped_storage().data_ptr()
        size, count = self.held.get(place, (tensor.untyped_storage().nbytes(), 0))
        self.held[place] = size, count + 1
        if count == 0:
            self.live += size
            self.most = max(self.most, self.live)
        weakref.finalize(tensor, self.drop, place)

    def drop(self, place: int) -> None:
        size, count = self.held.pop(place)
        if count > 1:
            self.held[place] = size, count - 1
        else:
            self.live -= size


def many_classes(num: int, *, width: int = 64, rows: int = 1000) -> tuple[Task, Point]:
    torch.manual_seed(0)
    x, y = torch.randn(rows, width), torch.arange(rows) % num
    splits = [Split(name, x, y) for name in ("train", "val", "calibration", "test")]
    task = Task("many", *splits, likelihood=Categorical(num), known_overlaps=True)
    return task, Point(Network(nn.Identity(), nn.Linear(width, num), task.signature, width=width))


def test_it_counts():
    with Peak() as peak:
        kept = torch.zeros(MIB // 4)
        for _ in range(10):
            kept[None] + 1
    assert peak.most == 2 * MIB


def test_a_thousand_classes_want_no_matrix_a_row():
    """Covariances of all rows would be 8 GB, a Jacobian of one row half a gigabyte."""
    task, point = many_classes(1000)
    for structure in ("kronecker", "diagonal"):
        with Peak() as fitting:
            fitted = Laplace(structure=structure, prior_precision=1.0)(point, task)
        assert fitting.most < 120 * MIB, structure
        with Peak() as predicting, torch.no_grad():
            fitted(task.test.x)
        assert predicting.most < 80 * MIB, structure


def test_links_of_covariances_take_some_rows_at_a_time(monkeypatch):
    matrix = 8 * 300**2
    monkeypatch.setattr(head_laplace, "MAX_NUMBERS", 2 * 300**2)
    task, point = many_classes(300, rows=40)
    for link in ("mackay", "bridge"):
        fitted = Laplace(prior_precision=1.0, link=link)(point, task)
        with Peak() as predicting, torch.no_grad():
            fitted(task.test.x)
        assert predicting.most < 20 * matrix, link  # those of all rows would be 40, several times over


def test_the_estimate_holds_and_the_limit_is_kept():
    task = stripes(n=80, size=16)
    network = build(ResNet(depth=8), (), task.signature)
    for structure in ("kronecker", "diagonal"):
        laplace = Laplace(subset="all", structure=structure, prior_precision=1.0, memory=0.1)
        memory = laplace.estimate_memory(network, task)
        with Peak() as fitting:
            fitted = laplace(Point(network), task)
        assert fitting.most < 0.1 * 1024 * MIB, structure
        assert fitting.most > 0.2 * (memory.fitting + fitted.rows * memory.row), structure
        with Peak() as predicting, torch.no_grad():
            fitted(task.test.x / 255)
        assert predicting.most < 0.1 * 1024 * MIB, structure


def test_a_dry_run_refuses_what_the_fit_would_refuse():
    """The few rows of a dry run would fit; training comes between it and the posterior."""
    task, point = many_classes(10)
    step = Laplace(subset="all", structure="full", memory=0.005)
    with pytest.raises(CannotCompose, match=r"650 parameters wants 12.89 MiB for its sums.*memory=0.02 and more"):
        step(point, task)
    with pytest.raises(CannotCompose, match=r"650 parameters wants 12.89 MiB for its sums.*memory=0.02 and more"):
        step(point, task.dry())
    dataclasses.replace(step, memory=0.02)(point, task.dry())
