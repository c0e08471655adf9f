import pytest
import torch
from torch.testing import assert_close

from levelhead.shifts.feature_noise import FeatureNoise


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_noise_has_the_stated_spread_of_each_feature(severity: int) -> None:
    x = torch.randn(20_000, 3) * torch.tensor([1.0, 10.0, 0.0]) + 5
    noise = FeatureNoise()(x, severity, torch.Generator().manual_seed(0)) - x
    expected = 0.1 * 2 ** (severity - 1) * x.std(0)
    assert_close(noise.std(0), expected, rtol=0.03, atol=1e-6)
    assert float(noise[:, 2].abs().max()) == 0  # a constant feature stays
    assert abs(float(torch.corrcoef(noise[:, :2].T)[0, 1])) < 0.04


def test_a_given_scale_does_not_depend_on_the_rows() -> None:
    x = torch.randn(100, 2)
    shift = FeatureNoise(scale=(2.0, 0.5))
    noise = shift(x, 3, torch.Generator().manual_seed(0)) - x
    again = shift(10 * x, 3, torch.Generator().manual_seed(0)) - 10 * x
    assert_close(noise, again, rtol=0, atol=1e-5)
    assert_close(noise.std(0), torch.tensor([0.8, 0.2]), rtol=0.3, atol=0)


def test_bad_constants_are_named() -> None:
    with pytest.raises(ValueError, match="levels"):
        FeatureNoise(levels=(1.0,))
    with pytest.raises(ValueError, match="scale"):
        FeatureNoise(scale=(-1.0,))
    with pytest.raises(ValueError, match="3 numbers, x has 2"):
        FeatureNoise(scale=(1.0, 1.0, 1.0))(torch.zeros(4, 2), 1, torch.Generator())


def test_training_rows_say_the_scale() -> None:
    shift = FeatureNoise().measured(torch.tensor([[0.0, 0.0], [2.0, 6.0]]))
    assert shift.scale == (1.0, 3.0)
    assert shift.measured(torch.zeros(4, 2)) == shift  # what was given stays
