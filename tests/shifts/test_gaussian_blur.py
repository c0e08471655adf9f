import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from shifts.oracle import assert_equal_in_8_bits, pictures

from levelhead.shifts.gaussian_blur import GaussianBlur


@pytest.mark.parametrize(
    "height, width, constants",
    [(28, 28, (0.4, 0.6, 0.7, 0.8, 1)), (32, 37, (0.4, 0.6, 0.7, 0.8, 1)), (96, 110, (1, 2, 3, 4, 6))],
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_equals_scipy(height: int, width: int, constants: tuple[float, ...], channels: int, severity: int) -> None:
    x = pictures(2, channels, height, width)
    ours = GaussianBlur()(x, severity, torch.Generator())
    for image, result in zip(x.double().numpy(), ours, strict=True):
        sigma = (0, constants[severity - 1], constants[severity - 1])
        assert_equal_in_8_bits(result, gaussian_filter(image, sigma, mode="nearest", truncate=4))


def test_constant_images_are_fixed_points() -> None:
    x = (torch.arange(256) / 255).reshape(256, 1, 1, 1).expand(256, 3, 32, 32)
    for severity in GaussianBlur.severities:
        assert torch.equal(GaussianBlur()(x, severity, torch.Generator()), x)
    levels = np.unique((255 * GaussianBlur()(x[:3], 5, torch.Generator())).round())
    assert levels.tolist() == [0, 1, 2]
