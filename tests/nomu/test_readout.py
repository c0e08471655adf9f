"""From raw uncertainty to a standard deviation."""

import math

import pytest
import torch
from torch.testing import assert_close

from levelhead.nomu.readout import Readout

RAW = torch.linspace(-3, 30, 400, dtype=torch.float64)[:, None]


def test_it_lies_between_its_bounds_and_never_falls():
    sigma = Readout(0.1, 2.0)(RAW)
    floor = 2.0 * (1 - math.exp(-0.05))
    assert_close(sigma[RAW <= 0], torch.full_like(sigma[RAW <= 0], floor))
    assert floor == pytest.approx(0.1, rel=0.03)
    assert (sigma >= floor - 1e-12).all()
    assert (sigma < 2.0).all()
    assert (sigma.diff(dim=0) >= 0).all()
    assert (sigma[RAW > 0].diff() > 0).all()


def test_its_slope_beside_zero_is_known():
    raw = torch.tensor([[1e-9]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(Readout(0.3, 2.0)(raw).sum(), raw)
    assert float(slope) == pytest.approx(math.exp(-0.15))


def test_the_cut_is_piecewise_linear_and_c_a_factor():
    assert_close(Readout(0.1, 2.0, 3.0, "cut")(RAW), 3 * RAW.clamp(0.1, 2.0))
    assert_close(Readout(0.1, 2.0, 3.0)(RAW), 3 * Readout(0.1, 2.0)(RAW))


def test_small_numbers_keep_their_digits():
    assert float(Readout(1e-6, 2.0)(torch.zeros(1, 1))) == pytest.approx(1e-6, rel=1e-5)


@pytest.mark.parametrize("wrong", [{"l_min": 0.0}, {"l_min": 3.0}, {"c": 0.0}])
def test_refuses_other_settings(wrong):
    with pytest.raises(ValueError, match="Readout"):
        Readout(**wrong)
