import numpy as np
import pytest
import torch
from scipy.ndimage import rotate
from shifts.oracle import pictures
from torch.testing import assert_close

from levelhead.shifts.rotation import Rotation


@pytest.mark.parametrize("height, width", [(28, 28), (33, 40)])
@pytest.mark.parametrize("degrees", Rotation.severities)
def test_equals_scipy(height: int, width: int, degrees: int) -> None:
    x = pictures(3, 2, height, width)
    ours = Rotation()(x, degrees, torch.Generator())
    theirs = rotate(x.double().numpy(), degrees, axes=(3, 2), reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


def test_right_angles_move_whole_pixels_counter_clockwise() -> None:
    x = pictures(2, 3, 32, 32)
    assert_close(Rotation()(x, 90, torch.Generator()), x.rot90(1, (2, 3)), rtol=0, atol=1e-4)
    assert_close(Rotation()(x, 180, torch.Generator()), x.flip(2, 3), rtol=0, atol=1e-4)


def test_severities_are_the_published_angles() -> None:
    assert Rotation.severities == (15, 30, 45, 60, 75, 90, 105, 120, 135, 150, 165, 180)
