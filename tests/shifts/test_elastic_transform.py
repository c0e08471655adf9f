"""Against SciPy's interpolation for one image, with the same draws."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from shifts.oracle import assert_equal_in_8_bits, pictures

from levelhead.shifts.elastic_transform import ElasticTransform

SMALL = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
LARGE = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))


def stretched(image: np.ndarray, level: tuple[float, ...], drawn: np.ndarray) -> np.ndarray:
    """Image (channel, height, width); draws of U(-1, 1): three points (x, y), then the fields of x and of y."""
    strength, sigma, corner = level
    height, width = image.shape[1:]
    third = min(height, width) // 3
    before = np.array([width // 2, height // 2]) + third * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + drawn[:6].reshape(3, 2) * corner
    forth = np.linalg.solve(np.c_[before, np.ones(3)], after)  # (x, y, 1) @ forth
    back = np.linalg.inv(np.c_[forth, [0, 0, 1]])[:, :2]
    y, x = np.mgrid[:height, :width].astype(float)
    source = np.stack([x, y, np.ones_like(x)], -1) @ back
    image = np.stack([map_coordinates(c, [source[..., 1], source[..., 0]], order=1, mode="mirror") for c in image])
    dx, dy = drawn[6:].reshape(2, height, width)
    if strength > 0:
        dx, dy = (strength * gaussian_filter(d, sigma, mode="reflect", truncate=3) for d in (dx, dy))
        image = np.stack([map_coordinates(c, [y + dy, x + dx], order=1, mode="reflect") for c in image])
    return image


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape, constants", [((1, 28, 28), SMALL), ((3, 32, 37), SMALL), ((3, 100, 90), LARGE)])
def test_equals_the_definition(shape: tuple[int, ...], constants: tuple[tuple[float, ...], ...], severity: int) -> None:
    # smooth pictures: beside a sharp edge, the places' rounding to 24 bits would be worth a level
    x = torch.nn.functional.avg_pool2d(pictures(3, *shape), 5, 1, 2, count_include_pad=False)
    ours = ElasticTransform()(x, severity, torch.Generator().manual_seed(severity))
    count = 6 + 2 * shape[1] * shape[2]
    drawn = torch.rand(3, count, generator=torch.Generator().manual_seed(severity)).double() * 2 - 1
    side = min(shape[1:]) * (1 if constants is SMALL else 244 / 224)
    for image, numbers, result in zip(x.double().numpy(), drawn.numpy(), ours, strict=True):
        level = tuple(side * constant for constant in constants[severity - 1])
        exact = stretched(image, level, numbers)
        assert np.abs((255 * result.numpy()).round() + 0.5 - 255 * exact).max() < 0.51
        if severity == 1 and constants is SMALL:
            assert_equal_in_8_bits(result, exact)


def test_constant_images_are_fixed_points() -> None:
    x = (torch.arange(256) / 255).reshape(256, 1, 1, 1).expand(256, 3, 32, 32)
    for severity in ElasticTransform.severities:
        assert torch.equal(ElasticTransform()(x, severity, torch.Generator()), x)
