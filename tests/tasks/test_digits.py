"""The digits are scikit-learn's, and blurred larger they are foreign to clothes."""

import numpy as np
import torch

from levelhead.tasks.digits import digits, digits_like
from levelhead.tasks.embedded import embedded


def test_they_are_the_digits_of_scikit_learn():
    from sklearn.datasets import load_digits

    published = load_digits()
    x, y = embedded("digits.npz", "x", "y")
    np.testing.assert_array_equal(np.round(x[:, 0].double().numpy() * 16 / 255), published.images)
    np.testing.assert_array_equal(y.numpy(), published.target)


def test_every_digit_is_in_exactly_one_split():
    task = digits()
    assert [len(s) for s in (task.train, task.val, task.calibration, task.test)] == [1097, 150, 150, 400]
    assert task.overlaps == {}
    counts = task.test.y.bincount()
    assert counts.min() >= 38
    assert counts.max() <= 42
    assert task.signature.input_shape == task.ood["clothes"].x.shape[1:] == (1, 8, 8)


def test_the_seed_decides():
    assert digits().digest == digits().digest
    assert digits().test.digest != digits(seed=1).test.digest


def test_large_digits_are_the_small_ones():
    large = digits_like(24)
    (small,) = embedded("digits.npz", "x")
    assert len(large) == 1000
    assert bool((large.y == -1).all())
    means = torch.nn.functional.avg_pool2d(large.x.float(), 3)
    correlation = torch.corrcoef(torch.stack([means.flatten(), small[:1000].float().flatten()]))[0, 1]
    assert float(correlation) > 0.95
