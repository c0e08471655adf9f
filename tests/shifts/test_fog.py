"""Against the published fractal for one image, point by point, with the same draws."""

import numpy as np
import pytest
import torch
from shifts.oracle import assert_equal_in_8_bits, pictures

from levelhead.shifts.fog import Fog, plasma

SMALL = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
LARGE = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))


def fractal(drawn: np.ndarray, decay: float) -> np.ndarray:
    """Diamond-square on a torus, one point after the other; draws of U(-1, 1) in the order of our steps."""
    side = round((len(drawn) + 1) ** 0.5)
    grid, rest, step, wibble = np.zeros((side, side)), iter(drawn), side, 100.0
    while step >= 2:
        half = step // 2
        corners = [(h, w) for h in range(0, side, step) for w in range(0, side, step)]
        for h, w in corners:
            around = [grid[(h + i) % side, (w + j) % side] for i in (0, step) for j in (0, step)]
            grid[h + half, w + half] = np.mean(around) + wibble**2 * next(rest)
        for down, right in ((0, half), (half, 0)):  # the middles of upper edges first, then of left ones
            for h, w in corners:
                y, z = h + down, w + right
                around = [
                    grid[(y + i) % side, (z + j) % side] for i, j in ((half, 0), (-half, 0), (0, half), (0, -half))
                ]
                grid[y, z] = np.mean(around) + wibble**2 * next(rest)
        step, wibble = half, wibble / decay
    grid -= grid.min()
    return grid / grid.max()


@pytest.mark.parametrize("side", [2, 8, 32])
@pytest.mark.parametrize("decay", [3.0, 1.4])
def test_the_fractal_equals_diamond_square(side: int, decay: float) -> None:
    drawn = torch.rand(3, side**2 - 1, dtype=torch.float64) * 2 - 1
    for numbers, found in zip(drawn.numpy(), plasma(drawn, decay), strict=True):
        np.testing.assert_allclose(found.numpy(), fractal(numbers, decay), atol=1e-9)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape, constants", [((1, 28, 28), SMALL), ((3, 32, 20), SMALL), ((3, 100, 90), LARGE)])
def test_equals_the_definition(
    shape: tuple[int, ...], constants: tuple[tuple[float, float], ...], severity: int
) -> None:
    x = pictures(2, *shape) * 0.8
    x = (x * 255).round() / 255
    ours = Fog()(x, severity, torch.Generator().manual_seed(severity))
    side = 32 if max(shape[1:]) <= 32 else 128
    drawn = torch.rand(2, side**2 - 1, generator=torch.Generator().manual_seed(severity)).double() * 2 - 1
    thickness, decay = constants[severity - 1]
    for image, numbers, result in zip(x.double().numpy(), drawn.numpy(), ours, strict=True):
        veil = fractal(numbers, decay)[: shape[1], : shape[2]]
        most = image.max()
        assert_equal_in_8_bits(result, (image + thickness * veil) * most / (most + thickness))


def test_black_stays_black_and_white_stays_in_range() -> None:
    for severity in Fog.severities:
        assert Fog()(torch.zeros(2, 3, 32, 32), severity, torch.Generator()).abs().max() == 0
        white = Fog()(torch.ones(2, 3, 32, 32), severity, torch.Generator())
        assert white.isfinite().all()
        assert 0 <= white.min() <= white.max() <= 1
