import pytest
import torch
from shifts.oracle import pictures
from torch.testing import assert_close

from levelhead.shifts.gamma import Gamma


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_black_and_white_stay_and_the_rest_is_a_power(severity: int) -> None:
    exponent = Gamma().levels[severity - 1]
    ends = torch.tensor([0.0, 1.0, 0.25]).reshape(1, 1, 1, 3)
    found = Gamma()(ends, severity, torch.Generator())
    assert_close(found, torch.tensor([0.0, 1.0, 0.25**exponent]).reshape(1, 1, 1, 3))


def test_an_exponent_and_its_inverse_cancel() -> None:
    x = pictures(2, 3, 8, 8)
    there = Gamma(levels=(2.0,) * 5)(x, 1, torch.Generator())
    assert_close(Gamma(levels=(0.5,) * 5)(there, 1, torch.Generator()), x)


@pytest.mark.parametrize("levels", [(2.0,), (1.0, 2.0, 3.0, 4.0, 0.0)])
def test_bad_exponents_are_named(levels: tuple) -> None:
    with pytest.raises(ValueError, match="Gamma: levels"):
        Gamma(levels=levels)
