"""The embedded task: balanced, disjoint, and cut from the official files."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from levelhead.tasks.fashion_mini import fashion_mini
from levelhead.tasks.fashion_mnist import read_files

TOOL = Path(__file__).parents[2] / "tools" / "make_fashion_mini.py"
DIGESTS = {"train": "5e55055e333a", "val": "dc7a865d39bf", "calibration": "7a4954bab2ae", "test": "097d9f87ad65"}


@pytest.fixture(scope="module")
def task():
    return fashion_mini()


def test_splits_are_balanced_and_disjoint(task):
    for split, a_class in ((task.train, 600), (task.val, 50), (task.calibration, 50), (task.test, 200)):
        assert split.y.bincount().tolist() == [a_class] * 10
    assert task.overlaps == {}
    assert task.signature.input_shape == (1, 28, 28)
    assert len(task.classes) == 10
    assert len(task.ood["digits"]) == 1000


def test_its_content_never_changes(task):
    assert {name: part["digest"] for name, part in task.receipt()["splits"].items()} == DIGESTS


def test_it_is_small():
    assert sum(file.stat().st_size for file in Path(str(files("levelhead.tasks"))).glob("*.npz")) < 5.5e6


def test_train_and_test_come_from_the_official_files(task, fashion_mnist_dir):
    official_train, official_test = (set(split.row_hashes) for split in read_files(fashion_mnist_dir))
    for split in (task.train, task.val, task.calibration):
        assert set(split.row_hashes) <= official_train
    assert set(task.test.row_hashes) <= official_test


def test_the_tool_makes_it_again(task, fashion_mnist_dir, tmp_path):
    made = tmp_path / "fashion_mini.npz"
    subprocess.run(
        [sys.executable, str(TOOL), "--source", str(fashion_mnist_dir), "--target", str(made)],
        check=True,
        capture_output=True,
    )
    import numpy as np

    arrays = np.load(made)
    for split in (task.train, task.val, task.calibration, task.test):
        np.testing.assert_array_equal(arrays[f"{split.name}_x"], split.x.numpy())
        np.testing.assert_array_equal(arrays[f"{split.name}_y"], split.y.numpy())


def test_mnist_joins_where_it_is(data_dir, tmp_path):
    assert set(fashion_mini(data_dir=data_dir).ood) == {"digits", "mnist"}
    assert set(fashion_mini(data_dir=tmp_path).ood) == {"digits"}
