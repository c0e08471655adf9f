import colorsys

import numpy as np
import pytest
import torch
from shifts.oracle import assert_equal_in_8_bits, pictures

from levelhead.shifts.saturate import Saturate

SMALL = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))
LARGE = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))


def through_hsv(image: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """Pixel by pixel through HSV and back; image (3, height, width)."""
    out = np.empty_like(image)
    for h, w in np.ndindex(image.shape[1:]):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[:, h, w])
        out[:, h, w] = colorsys.hsv_to_rgb(hue, min(saturation * scale + shift, 1), value)
    return out


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("side, constants", [(16, SMALL), (86, LARGE)])
def test_equals_the_way_through_hsv(side: int, constants: tuple[tuple[float, float], ...], severity: int) -> None:
    x = pictures(1, 3, side, side)
    x[..., side // 2, :] = x[:, :1, side // 2, :]  # a grey line
    ours = Saturate()(x, severity, torch.Generator())
    assert_equal_in_8_bits(ours[0], through_hsv(x[0].double().numpy(), *constants[severity - 1]))
    grey = x[:, :1]
    expected = through_hsv(grey[0].double().numpy().repeat(3, axis=0), *constants[severity - 1]).mean(0, keepdims=True)
    assert_equal_in_8_bits(Saturate()(grey, severity, torch.Generator())[0], expected)


def test_a_number_of_channels_without_colours_is_refused() -> None:
    with pytest.raises(ValueError, match="Saturate: wants grey or RGB"):
        Saturate()(torch.zeros(1, 4, 8, 8), 1, torch.Generator())
