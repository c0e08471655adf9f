"""The two terms against their formulas, at the seams and far out."""

import pytest
import torch
from torch.testing import assert_close

from levelhead.nomu.loss import in_sample, out_of_sample


def slope(function, at):
    point = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    return float(torch.autograd.grad(function(point).sum(), point)[0])


def test_the_plain_terms_are_the_formulas():
    raw = torch.randn(20, 2, dtype=torch.float64) / 10
    assert_close(in_sample(raw, stable=False), raw**2)
    assert_close(out_of_sample(raw, c_exp=30.0, stable=False), torch.exp(-30 * raw))


def test_the_stable_ones_agree_where_training_ends():
    raw = torch.rand(50, dtype=torch.float64)
    assert_close(out_of_sample(raw, c_exp=30.0, stable=True), out_of_sample(raw, c_exp=30.0, stable=False))
    assert_close(in_sample(raw, stable=True), in_sample(raw, stable=False))


def test_the_stable_ones_are_finite_far_out_and_smooth_at_their_seams():
    far = torch.tensor([-1e4, 1e4])
    assert out_of_sample(far, c_exp=30.0, stable=True).isfinite().all()
    assert not out_of_sample(far, c_exp=30.0, stable=False).isfinite().all()
    assert slope(lambda r: out_of_sample(r, c_exp=30.0, stable=True), -1e-9) == pytest.approx(-30, rel=1e-6)
    assert slope(lambda r: out_of_sample(r, c_exp=30.0, stable=True), 1e-9) == pytest.approx(-30, rel=1e-6)
    for side in (1 - 1e-9, 1 + 1e-9, -1 - 1e-9):
        assert abs(slope(lambda r: in_sample(r, stable=True), side)) == pytest.approx(2, rel=1e-6)


def test_the_huber_part_starts_at_delta():
    raw = torch.tensor([-3.0, 0.2, 4.0])
    assert_close(in_sample(raw, stable=True, delta=0.5), torch.tensor([2.75, 0.04, 3.75]))
