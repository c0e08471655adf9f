"""The moons lie where the formula says, the ring far from them."""

import pytest
import torch

from levelhead.tasks.two_moons import two_moons


def test_points_without_noise_lie_on_two_half_circles():
    split = two_moons(n=64, noise=0.0).train
    outer, inner = split.x[split.y == 0], split.x[split.y == 1]
    assert torch.allclose(outer.norm(dim=1), torch.ones(32))
    assert torch.allclose((inner - torch.tensor([1.0, 0.5])).norm(dim=1), torch.ones(32))
    assert bool((outer[:, 1] >= 0).all())
    assert bool((inner[:, 1] <= 0.5).all())


def test_sizes_and_seed():
    task = two_moons(n=100)
    assert [len(s) for s in (task.train, task.val, task.calibration, task.test, task.ood["ring"])] == [
        100,
        25,
        25,
        50,
        50,
    ]
    assert task.digest == two_moons(n=100).digest
    assert task.train.digest != two_moons(n=100, seed=1).train.digest


def test_the_ring_is_far_away():
    task = two_moons()
    assert float(torch.cdist(task.ood["ring"].x, task.train.x).min()) > 1.5


def test_refuses_too_few_points():
    with pytest.raises(ValueError, match="at least 16"):
        two_moons(n=15)
