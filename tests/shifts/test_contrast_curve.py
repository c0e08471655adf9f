import math

import pytest
import torch
from torch.testing import assert_close

from levelhead.shifts.contrast_curve import ContrastCurve


def curve(values: list[float], severity: int, shift: ContrastCurve = ContrastCurve()) -> torch.Tensor:
    return shift(torch.tensor(values).reshape(1, 1, 1, -1), severity, torch.Generator()).reshape(-1)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_three_points_stay_and_the_middle_is_as_steep_as_said(severity: int) -> None:
    assert_close(curve([0.0, 0.5, 1.0], severity), torch.tensor([0.0, 0.5, 1.0]), atol=1e-6, rtol=0)
    k = ContrastCurve().levels[severity - 1]
    slope = (curve([0.501], severity) - curve([0.499], severity)) / 0.002
    assert float(slope) == pytest.approx(k / 4 / math.tanh(k / 4), rel=1e-2)  # s'(1/2) / (s(1) - s(0))


def test_towards_zero_it_is_the_straight_line() -> None:
    values = [0.1, 0.3, 0.8]
    assert_close(curve(values, 1, ContrastCurve(levels=(1e-2,) * 5)), torch.tensor(values), atol=1e-4, rtol=0)


@pytest.mark.parametrize("levels", [(2.0,), (1.0, 2.0, 3.0, 4.0, 0.0)])
def test_bad_slopes_are_named(levels: tuple) -> None:
    with pytest.raises(ValueError, match="ContrastCurve: levels"):
        ContrastCurve(levels=levels)
