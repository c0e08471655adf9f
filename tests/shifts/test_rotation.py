import numpy as np
import pytest
import torch
from scipy.ndimage import rotate
from shifts.oracle import pictures
from torch.testing import assert_close

from levelhead.shifts.rotation import Rotation, axis_taps, spline_coefficients


@pytest.mark.parametrize("height, width", [(28, 28), (33, 40)])
@pytest.mark.parametrize("degrees", Rotation.severities)
def test_equals_scipy(height: int, width: int, degrees: int) -> None:
    x = pictures(3, 2, height, width)
    ours = Rotation()(x, degrees, torch.Generator())
    theirs = rotate(x.double().numpy(), degrees, axes=(3, 2), reshape=False)  # its default is order 3, zeros outside
    np.testing.assert_allclose(ours.numpy(), theirs.clip(0, 1), atol=1e-5)


@pytest.mark.parametrize("degrees", Rotation.severities)
def test_equals_the_published_crop_of_an_even_canvas(degrees: int) -> None:
    x = pictures(3, 1, 28, 28)
    canvas = rotate(x.double().numpy(), degrees, axes=(3, 2))
    first = canvas.shape[-1] // 2 - 14
    published = canvas[:, :, first : first + 28, first : first + 28].clip(0, 1)
    difference = np.abs(Rotation()(x, degrees, torch.Generator()).numpy() - published).max()
    if canvas.shape[-1] % 2 == 0:
        assert difference < 1e-5
    else:
        assert difference > 1e-2  # theirs is half a pixel off the centre


def test_a_spline_goes_through_its_pixels() -> None:
    for size in (1, 2, 3, 28):
        values = torch.randn(size, dtype=torch.float64)
        places, weights = axis_taps(torch.arange(size, dtype=torch.float64), size)
        spline = spline_coefficients(size) @ values
        assert_close((spline[places] * weights).sum(0), values)


def test_right_angles_move_whole_pixels_counter_clockwise() -> None:
    x = pictures(2, 3, 32, 32)
    assert_close(Rotation()(x, 90, torch.Generator()), x.rot90(1, (2, 3)), rtol=0, atol=1e-4)
    assert_close(Rotation()(x, 180, torch.Generator()), x.flip(2, 3), rtol=0, atol=1e-4)


def test_severities_are_the_published_angles() -> None:
    assert Rotation.severities == (15, 30, 45, 60, 75, 90, 105, 120, 135, 150, 165, 180)
