"""Every check of data is seen to speak on data with that one fault, and to be content with data without it."""

import dataclasses

import pytest
import torch

from levelhead.backbones.mlp import MLP
from levelhead.doctor import examine
from levelhead.likelihood import Categorical, Gaussian
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task


def table(x: torch.Tensor, y: torch.Tensor, *, likelihood=None, **changes) -> Task:
    """300 training rows and three times 100 others."""
    bounds = {"train": (0, 300), "val": (300, 400), "calibration": (400, 500), "test": (500, 600)}
    splits = {name: Split(name, x[a:b], y[a:b]) for name, (a, b) in bounds.items()}
    return Task(name="table", likelihood=likelihood or Categorical(2), **{**splits, **changes})


def features() -> torch.Tensor:
    return torch.randn(600, 3)


LABELS = torch.arange(600) % 2


def found(task: Task, level: str = "warning") -> dict[str, str]:
    diagnosis = examine(MLP(hidden=(4,)), task=task)
    return {f.check: f.text for f in diagnosis.findings if f.subject == "data" and f.level == level}


def test_clean_tables_images_and_targets_are_healthy():
    target = 5 + 3 * torch.randn(600, 1)
    line = table(features(), target, likelihood=Gaussian(1, shift=(5.0,), scale=(3.0,)))
    for task in (table(features(), LABELS), stripes(n=400), line):
        assert found(task) == found(task, "problem") == {}
        assert "train" in found(task, "ok")["splits"]


def test_class_balance():
    rare = torch.zeros(600, dtype=torch.int64)
    rare[::15] = 1
    assert found(table(features(), rare))["class balance"].startswith("1 (20) of at most 280")
    absent = table(features(), LABELS, likelihood=Categorical(3), classes=("a", "b", "c"))
    assert found(absent, "problem")["class balance"] == "no training row of c"


def test_small_splits():
    task = stripes(n=24)
    assert found(task)["val size"].startswith("6 rows: choices made")
    assert found(task)["calibration size"].startswith("6 rows: post-hoc steps")
    few = LABELS.clone()
    few[300:397] = 0
    assert found(table(features(), few))["val size"].startswith("fewer than 5 rows in 1 of 2 classes")


def test_overlaps_and_duplicates():
    x, y = features(), LABELS.clone()
    x[500:510] = x[0]
    y[500:510] = y[0]
    shared = table(x, y, known_overlaps=True)
    assert found(shared)["overlaps"] == "10 rows of test are in train too"
    y[500:510] = 1 - y[0]
    assert found(table(x, y))["overlaps"] == "inputs of 1 of test are in train under another label"
    x = features()
    x[10:20] = x[0]
    assert (
        found(table(x, torch.zeros(600, dtype=torch.int64)))["duplicates"] == "10 of 300 training rows repeat another"
    )
    assert found(table(x, LABELS))["duplicates"] == "1 input of train with different labels"


def test_constant_and_wild_features():
    x = features()
    x[:, 1] = 7
    assert found(table(x, LABELS))["constant features"] == "columns 1 never change in train"
    x = features()
    x[3, 2] = -999
    assert "interquartile ranges from its column's median" in found(table(x, LABELS))["input range"]
    x = features() + torch.tensor([1e6, 0, 0])
    assert found(table(x, LABELS))["input range"].startswith("a column's values are 7")


def test_images_divided_twice_and_images_that_are_one():
    task = stripes(n=400)

    def changed(change):
        names = ("train", "val", "calibration", "test")
        splits = {name: Split(name, change(getattr(task, name).x), getattr(task, name).y) for name in names}
        return dataclasses.replace(task, ood={}, known_overlaps=True, **splits)

    assert "brightest pixel 0.00392" in found(changed(lambda x: x.float() / 255 / 255), "problem")["inputs"]
    assert found(changed(torch.zeros_like), "problem")["inputs"] == "all training images are the same"


def test_targets():
    y = 100 + 20 * torch.randn(600, 1)
    assert "targets" in found(table(features(), y, likelihood=Gaussian()))
    constant = table(features(), torch.ones(600, 1), likelihood=Gaussian())
    assert found(constant, "problem")["targets"] == "a target is constant in train"


@pytest.mark.parametrize("void", [None, 255])
def test_labels_for_every_pixel_and_soft_labels(void):
    task = stripes(n=400, size=6)
    names = ("train", "val", "calibration", "test")

    def per_pixel(split: Split) -> Split:
        y = (split.x[:, 0] > 127).long()
        if void is not None:
            y[:, 0] = void
        return Split(split.name, split.x, y)

    pixels = Task(
        name="pixels", likelihood=Categorical(2, void=void), **{n: per_pixel(getattr(task, n)) for n in names}
    )
    assert "class balance" in found(pixels, "ok")
    soft = {n: Split(n, getattr(task, n).x, torch.eye(3)[getattr(task, n).y]) for n in names}
    assert "class balance" in found(Task(name="soft", likelihood=Categorical(3), **soft), "ok")
