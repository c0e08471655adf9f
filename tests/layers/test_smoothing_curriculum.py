"""The schedule of the curriculum, in the kernels."""

import torch
from torch.testing import assert_close

from levelhead.declared import Pace
from levelhead.layers.frequency_filters import gaussian_kernels
from levelhead.layers.smoothing_curriculum import SmoothingCurriculum


def curriculum(stored: bool = True) -> SmoothingCurriculum:
    return SmoothingCurriculum(3, sigma0=1.0, factor=0.9, every=5, size=3, padding="zero", stored=stored)


def test_widths_shrink_by_a_tenth_every_five_epochs() -> None:
    layer = curriculum()
    assert_close(layer.kernel, gaussian_kernels(torch.ones(3)).float())  # from the first step on
    for epoch, sigma in ((0, 1.0), (4, 1.0), (5, 0.9), (9, 0.9), (10, 0.81), (24, 0.9**4)):
        layer.pace(Pace(epoch, 3, epoch, 0))
        assert_close(layer.kernel, gaussian_kernels(torch.full((3,), sigma)).float())
    layer.pace(Pace(300, 0, 0, 0))
    assert layer.idle


def test_prediction_goes_through_the_last_one_or_through_none() -> None:
    x = torch.randn(2, 3, 5, 5)
    for stored in (True, False):
        layer = curriculum(stored)
        blurred = layer.train()(x)
        assert not torch.equal(blurred, x)
        assert torch.equal(layer.eval()(x), blurred if stored else x)
