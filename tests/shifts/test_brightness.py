import colorsys

import numpy as np
import pytest
import torch
from shifts.oracle import assert_equal_in_8_bits, pictures

from levelhead.shifts.brightness import Brightness


def brighter(image: np.ndarray, c: float) -> np.ndarray:
    """Pixel by pixel through HSV and back; image (channel, height, width)."""
    out = np.empty_like(image)
    for h in range(image.shape[1]):
        for w in range(image.shape[2]):
            hue, saturation, value = colorsys.rgb_to_hsv(*np.broadcast_to(image[:, h, w], 3))
            out[:, h, w] = colorsys.hsv_to_rgb(hue, saturation, min(value + c, 1))[: len(image)]
    return out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side, constants", [(16, (0.05, 0.1, 0.15, 0.2, 0.3)), (90, (0.1, 0.2, 0.3, 0.4, 0.5))])
def test_equals_the_way_through_hsv(channels: int, side: int, constants: tuple[float, ...]) -> None:
    x = pictures(1, channels, side, side)
    for severity, c in enumerate(constants, start=1):
        if side < 50 or severity in (1, 5):
            ours = Brightness()(x, severity, torch.Generator())
            assert_equal_in_8_bits(ours[0], brighter(x[0].double().numpy(), c))


def test_black_turns_grey() -> None:
    assert Brightness()(torch.zeros(1, 3, 8, 8), 5, torch.Generator()).unique().tolist() == pytest.approx([76 / 255])


def test_a_whole_number_of_levels_is_added_exactly() -> None:
    levels = torch.arange(256).reshape(1, 1, 16, 16)
    ours = Brightness()(levels / 255, 4, torch.Generator())  # 0.2 is 51 levels
    assert torch.equal(ours, (levels + 51).clamp_max(255) / 255)
