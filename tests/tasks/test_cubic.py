"""The cubic: the curve, its noise, its gap."""

import pytest
import torch

from levelhead.tasks.cubic import NOISE, cubic


def test_the_curve_and_its_noise():
    split = cubic(n=4000).train
    residual = split.y - split.x**3
    assert abs(float(residual.mean())) < 4 * NOISE / 4000**0.5
    assert float(residual.std()) == pytest.approx(NOISE, rel=0.05)
    assert 3.9 < float(split.x.max()) < 4
    assert -4 < float(split.x.min()) < -3.9


def test_the_gap_is_left_out_and_asked_about():
    task = cubic(gap=True)
    assert float(task.train.x.abs().min()) > 2
    assert float(task.shifts["gap"].x.abs().max()) < 2
    assert float(task.shifts["outside"].x.abs().min()) >= 4
    assert set(cubic().shifts) == {"outside"}


def test_targets_are_standardised_by_train():
    task = cubic()
    assert len(task.train) == 20
    assert task.likelihood.shift[0] == pytest.approx(float(task.train.y.mean()), rel=1e-5)
    assert task.likelihood.scale[0] == pytest.approx(float(task.train.y.std(correction=0)), rel=1e-5)
    assert torch.isfinite(task.train.y).all()


def test_refuses_too_few_points():
    with pytest.raises(ValueError, match="at least 4"):
        cubic(n=3)
