import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from shifts.oracle import assert_equal_in_8_bits, pictures

from levelhead.shifts._filters import zoomed
from levelhead.shifts.zoom_blur import ZoomBlur, zooms

SMALL = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
LARGE = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))


def clipped_zoom(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle of an image (height, width), enlarged, and its middle again."""
    kept = [int(np.ceil(size / factor)) for size in image.shape]
    top, left = ((size - keep) // 2 for size, keep in zip(image.shape, kept, strict=True))
    large = zoom(image[top : top + kept[0], left : left + kept[1]], factor, order=1)
    top, left = ((big - size) // 2 for big, size in zip(large.shape, image.shape, strict=True))
    return large[top : top + image.shape[0], left : left + image.shape[1]]


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape, constants", [((1, 28, 28), SMALL), ((3, 32, 37), SMALL), ((3, 96, 112), LARGE)])
def test_equals_the_definition(
    shape: tuple[int, ...], constants: tuple[tuple[float, float], ...], severity: int
) -> None:
    x = pictures(2, *shape)
    ours = ZoomBlur()(x, severity, torch.Generator())
    end, step = constants[severity - 1]
    factors = np.arange(1, end, step)
    for image, result in zip(x.double().numpy(), ours, strict=True):
        total = image + sum(np.stack([clipped_zoom(channel, z) for channel in image]) for z in factors)
        assert_equal_in_8_bits(result, total / (len(factors) + 1))


@pytest.mark.parametrize("factor", [1.0, 1.13, 1.25, 1.75, 2.25, 3.0, 4.5])
@pytest.mark.parametrize("size", [28, 32, 96, 224])
def test_zoom_equals_scipy(size: int, factor: float) -> None:
    x = torch.rand(2, size, size + 5, dtype=torch.float64)
    expected = np.stack([clipped_zoom(image, factor) for image in x.numpy()])
    np.testing.assert_allclose(zoomed(x, factor).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("level", [*SMALL, *LARGE])
def test_factors_are_numpy_s(level: tuple[float, float]) -> None:
    np.testing.assert_array_equal(zooms(*level), np.arange(1, *level))


def test_constant_images_are_fixed_points() -> None:
    x = (torch.arange(256) / 255).reshape(256, 1, 1, 1).expand(256, 1, 32, 32)
    for severity in ZoomBlur.severities:
        assert torch.equal(ZoomBlur()(x, severity, torch.Generator()), x)
