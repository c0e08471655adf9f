"""The tiny task: as asked, repeatable, and learnable by eye."""

import pytest
import torch

from levelhead.tasks.stripes import stripes


def test_sizes_and_shapes():
    task = stripes(n=48, num_classes=4, channels=3, size=10)
    sizes = [len(split) for split in (task.train, task.val, task.calibration, task.test, task.ood["checkers"])]
    assert sizes == [48, 12, 12, 24, 24]
    assert task.signature.input_shape == (3, 10, 10)
    assert task.signature.num_outputs == 4
    assert task.train.y.bincount().tolist() == [12] * 4
    assert task.classes == ("0 degrees", "45 degrees", "90 degrees", "135 degrees")


def test_the_seed_decides():
    assert stripes().digest == stripes().digest
    assert stripes().train.digest != stripes(seed=1).train.digest


def test_the_stripes_run_as_their_class_says():
    task = stripes(num_classes=2, noise=0.01)
    x, y = task.train.x[:, 0].float(), task.train.y
    along_rows = x.diff(dim=1).abs().sum((1, 2))
    along_columns = x.diff(dim=2).abs().sum((1, 2))
    assert torch.equal(along_rows < along_columns / 5, y == 0)
    assert torch.equal(along_columns < along_rows / 5, y == 1)


def test_nearest_neighbours_know_the_classes_and_find_no_checkers_near():
    task = stripes()
    train, test, checkers = (s.x.float().flatten(1) for s in (task.train, task.test, task.ood["checkers"]))
    distances = torch.cdist(test, train)
    assert (task.train.y[distances.argmin(1)] == task.test.y).float().mean() > 0.95
    assert torch.cdist(checkers, train).amin(1).mean() > distances.amin(1).mean()


def test_refuses_too_few_images():
    with pytest.raises(ValueError, match="at least 4"):
        stripes(n=11)
