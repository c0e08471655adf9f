"""Against the published steps for one image, with the same draws."""

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from scipy.stats import norm
from shifts.oracle import pictures
from shifts.test_motion_blur import one_sided

from levelhead.shifts.snow import Snow

SMALL = (
    (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)
LARGE = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)


def snowed(image: np.ndarray, level: tuple[float, ...], noise: np.ndarray, degrees: float) -> np.ndarray:
    """Image (channel, height, width); values of 0 to 255, not yet truncated."""
    mean, spread, factor, threshold, radius, sigma, mix = level
    height, width = noise.shape
    kept = [int(np.ceil(size / factor)) for size in noise.shape]
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    large = zoom((mean + spread * noise)[top : top + kept[0], left : left + kept[1]], factor, order=1)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    layer = large[top : top + height, left : left + width].copy()
    layer[layer < threshold] = 0
    layer = np.floor(np.clip(layer, 0, 1) * 255 + 1e-3)
    layer = np.round(one_sided(layer[None], int(radius), sigma, degrees))[0] / 255
    grey = image[0] if len(image) == 1 else np.tensordot([0.299, 0.587, 0.114], image, 1)
    image = mix * image + (1 - mix) * np.maximum(image, grey * 1.5 + 0.5)
    return 255 * np.clip(image + layer + np.rot90(layer, 2), 0, 1)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape, constants", [((1, 28, 28), SMALL), ((3, 32, 37), SMALL), ((3, 96, 90), LARGE)])
def test_equals_the_definition(shape: tuple[int, ...], constants: tuple[tuple[float, ...], ...], severity: int) -> None:
    x = pictures(4, *shape, seed=severity) * 0.6
    x = (x * 255).round() / 255
    ours = Snow()(x, severity, torch.Generator().manual_seed(severity))
    pixels = shape[1] * shape[2]
    drawn = torch.randn(4, -(-(pixels + 1) // 16) * 16, generator=torch.Generator().manual_seed(severity)).numpy()
    for image, numbers, result in zip(x.double().numpy(), drawn, ours, strict=True):
        degrees = float(norm.cdf(numbers[pixels]) * 90 - 135)
        exact = snowed(image, constants[severity - 1], numbers[:pixels].reshape(shape[1:]).astype(float), degrees)
        mine = (255 * result.double()).round().numpy()
        # a flake on a border between two levels may fall on either side, and its line of pixels with it
        assert np.abs(mine - np.floor(exact)).max() <= 2
        assert (np.abs(mine + 0.5 - exact) > 0.51).mean() < 0.02


def test_flakes_fall_downwards_on_both_diagonals_alike() -> None:
    """U(-135, -45) degrees: steps go up the image, so streaks are taller than wide."""
    black = torch.zeros(64, 1, 32, 32)
    snow = Snow()(black, 1, torch.Generator().manual_seed(0))
    tall = (snow[..., 1:, :] - snow[..., :-1, :]).abs().mean()
    wide = (snow[..., 1:] - snow[..., :-1]).abs().mean()
    assert tall < 0.8 * wide


def test_the_layer_and_its_half_turn_are_both_there() -> None:
    snow = Snow()(torch.zeros(8, 1, 32, 32), 5, torch.Generator().manual_seed(0))
    dry = snow - snow.amin((1, 2, 3), keepdim=True)
    assert (dry - dry.flip(-2, -1)).abs().max() < 1e-6
