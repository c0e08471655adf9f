import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from shifts.oracle import assert_equal_in_8_bits, pictures

from levelhead.shifts.defocus_blur import DefocusBlur, disk

SMALL = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
LARGE = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))


def kernel(radius: float, smoothing: float) -> np.ndarray:
    """The original's disk, in its own words, with SciPy's mirrored borders for OpenCV's."""
    if radius <= 8:
        line, taps = np.arange(-8, 9), np.arange(-1, 2)
    else:
        line, taps = np.arange(-radius, radius + 1), np.arange(-2, 3)
    across, down = np.meshgrid(line, line)
    aliased = np.array((across**2 + down**2) <= radius**2, dtype=np.float64)
    aliased /= aliased.sum()
    gauss = np.exp(-(taps**2) / (2 * smoothing**2))
    gauss /= gauss.sum()
    return correlate(aliased, np.outer(gauss, gauss), mode="mirror")


@pytest.mark.parametrize("side, constants", [(28, SMALL), (100, LARGE)])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_the_definition(
    side: int, constants: tuple[tuple[float, float], ...], severity: int, channels: int
) -> None:
    x = pictures(2, channels, side, side + 3)
    ours = DefocusBlur()(x, severity, torch.Generator())
    weights = kernel(*constants[severity - 1])
    for image, result in zip(x.double().numpy(), ours, strict=True):
        exact = np.stack([correlate(channel, weights, mode="mirror") for channel in image])
        assert_equal_in_8_bits(result, exact)


@pytest.mark.parametrize("level", [*SMALL, *LARGE])
def test_the_kernel_is_cut_to_what_float32_sees(level: tuple[float, float]) -> None:
    ours, full = disk(*level).numpy(), kernel(*level)
    margin = (len(full) - len(ours)) // 2
    np.testing.assert_allclose(np.pad(ours, margin), full, atol=1e-8)
    assert len(ours) % 2 == 1
    assert len(ours) == 3 if level in SMALL[:3] else len(ours) >= 3


def test_constant_images_are_fixed_points() -> None:
    """Exactly, but for the two largest disks: mirrored at the border, they sum to 1.013 and 1.011."""
    x = (torch.arange(256) / 255).reshape(256, 1, 1, 1)
    for severity in DefocusBlur.severities:
        small, large = x.expand(256, 1, 32, 32), x.expand(256, 1, 88, 88)
        assert torch.equal(DefocusBlur()(small, severity, torch.Generator()), small)
        gain = {4: 1.013, 5: 1.011}.get(severity, 1.0)
        blurred = DefocusBlur()(large, severity, torch.Generator())
        assert (blurred - (gain * large).clamp_max(1)).abs().max() < (1.1 / 255 if gain > 1 else 1e-6)
