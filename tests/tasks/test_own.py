"""The user's own tensors, arrays and data sets."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from levelhead.likelihood import Categorical, Gaussian
from levelhead.tasks.own import from_dataset, from_tensors
from levelhead.tasks.task import TestDataLeak


def rows(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)), rng.integers(0, 4, n)


def test_arrays_become_a_classification_task():
    x, y = rows()
    task = from_tensors(x, y)
    assert task.likelihood == Categorical(4)
    assert task.train.x.dtype == torch.float32
    assert [len(s) for s in (task.train, task.val, task.calibration, task.test)] == [24, 4, 4, 8]
    assert task.digest == from_tensors(x, y).digest
    assert task.test.digest != from_tensors(x, y, seed=1).test.digest


def test_floats_become_a_regression_task():
    x, _ = rows()
    task = from_tensors(x, x.sum(1))
    assert isinstance(task.likelihood, Gaussian)
    assert task.train.y.shape == (24, 1)
    assert task.likelihood.shift[0] == pytest.approx(float(task.train.y.mean()), abs=1e-6)


def test_given_splits_are_kept_and_the_others_drawn():
    x, y = rows()
    test = rows(10, seed=1)
    task = from_tensors(x, y, test=test, fractions=(0.2, 0.05, 0.5))
    assert [len(s) for s in (task.train, task.val, task.calibration, task.test)] == [30, 8, 2, 10]
    np.testing.assert_allclose(task.test.x.numpy(), test[0], rtol=1e-6)


def test_a_given_split_with_rows_of_train_is_a_leak():
    x, y = rows()
    with pytest.raises(TestDataLeak, match="5 rows of test are in train"):
        from_tensors(x, y, test=(x[:5], y[:5]))
    assert from_tensors(x, y, test=(x[:5], y[:5]), known_overlaps=True).overlaps == {"train/test": 5}


def test_twins_do_not_leak_into_drawn_splits():
    x, y = rows()
    task = from_tensors(np.concatenate([x, x[:10]]), np.concatenate([y, y[:10]]))
    assert task.overlaps == {}


def test_the_rest_of_a_task_passes_through():
    x, y = rows()
    task = from_tensors(
        x, y, name="mine", classes="abcd", ood={"far": x + 9}, shifts={"near": (x, y)}, unlabelled=x, args={"k": 1}
    )
    assert task.name == "mine"
    assert task.classes == ("a", "b", "c", "d")
    assert task.ood["far"].y.unique().tolist() == task.unlabelled.y.unique().tolist() == [-1]
    assert len(task.shifts["near"]) == 40
    assert task.receipt()["args"] == {"k": 1, "seed": 0, "fractions": [0.1, 0.1, 0.2]}
    assert task.receipt()["splits"]["unlabelled"]["size"] == 40


def test_a_torch_data_set():
    x, y = rows()
    data = TensorDataset(torch.tensor(x), torch.tensor(y))
    assert from_dataset(data).digest == from_tensors(x, y).digest
    other = TensorDataset(*map(torch.tensor, rows(10, seed=1)))
    task = from_dataset(data, test=other, name="mine")
    assert len(task.test) == 10
    assert task.name == "mine"


class Pictures:
    """Rows as torchvision's data sets give them without a transform: a picture of Pillow's and a Python number."""

    def __init__(self, mode):
        self.mode = mode

    def __len__(self):
        return 20

    def __getitem__(self, place):
        array = np.random.default_rng(place).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        return Image.fromarray(array).convert(self.mode), place % 2


def test_a_data_set_of_pictures():
    assert from_dataset(Pictures("RGB")).signature.input_shape == (3, 4, 5)
    grey = from_dataset(Pictures("L"))
    assert grey.signature.input_shape == (1, 4, 5)
    assert grey.train.x.dtype == torch.uint8


def test_refuses_rows_that_are_no_pairs():
    with pytest.raises(ValueError, match="rows of two"):
        from_dataset([(1.0, 2.0, 3.0)])
    with pytest.raises(ValueError, match="at least one row"):
        from_dataset([])
