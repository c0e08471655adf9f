import numpy as np
import pytest
import torch
from shifts.oracle import pictures

from levelhead.shifts.translation import Translation


@pytest.mark.parametrize("pixels", Translation.severities)
def test_equals_the_published_roll_of_28_pixel_images(pixels: int) -> None:
    x = pictures(3, 1, 28, 28)
    ours = Translation()(x, pixels, torch.Generator())
    np.testing.assert_array_equal(ours.numpy(), np.roll(x.numpy(), pixels, axis=-1))


@pytest.mark.parametrize("width, pixels, moved", [(32, 14, 16), (224, 2, 16), (56, 26, 52), (8, 2, 1), (4, 2, 1)])
def test_other_widths_move_by_the_same_share(width: int, pixels: int, moved: int) -> None:
    x = pictures(2, 3, 12, width)
    assert torch.equal(Translation()(x, pixels, torch.Generator()), x.roll(moved, -1))


def test_severities_are_the_published_pixels() -> None:
    assert Translation.severities == (2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26)
