"""Against a loop over pixels and taps, with the same draws."""

import math

import numpy as np
import pytest
import torch
from shifts.oracle import pictures

from levelhead.shifts._filters import motion_steps, motion_taps
from levelhead.shifts.motion_blur import MotionBlur

SMALL = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
LARGE = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))


def one_sided(image: np.ndarray, radius: int, sigma: float, degrees: float) -> np.ndarray:
    """Image (channel, height, width), whole pixel by whole pixel."""
    channels, height, width = image.shape
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    out = np.zeros_like(image)
    rows, columns = np.arange(height), np.arange(width)
    for i, weight in enumerate(weights):
        right = math.ceil(i * math.cos(math.radians(degrees)) - 0.5)
        down = math.ceil(i * math.sin(math.radians(degrees)) - 0.5)
        there = np.ix_(range(channels), np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1))
        out += weight * image[there]
    return out


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape, constants", [((1, 28, 28), SMALL), ((3, 32, 37), SMALL), ((3, 90, 96), LARGE)])
def test_equals_the_definition(shape: tuple[int, ...], constants: tuple[tuple[int, float], ...], severity: int) -> None:
    x = pictures(9, *shape, seed=severity)
    ours = MotionBlur()(x, severity, torch.Generator().manual_seed(severity))
    angles = torch.rand(9, 1, generator=torch.Generator().manual_seed(severity)) * 90 - 45
    for image, degrees, result in zip(x.double().numpy(), angles[:, 0].tolist(), ours, strict=True):
        exact = 255 * one_sided(image, *constants[severity - 1], degrees)
        mine = (255 * result.double()).round().numpy()
        assert np.abs(mine - exact).max() <= 0.5 + 1e-2  # rounded to the nearest level


@pytest.mark.parametrize("radius, sigma", [*SMALL, *LARGE])
def test_the_kernel_is_a_one_sided_gaussian(radius: int, sigma: float) -> None:
    taps = motion_taps(radius, sigma).numpy()
    full = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    assert len(taps) <= 2 * radius + 1
    assert taps.sum() == pytest.approx(1, abs=2e-6)
    np.testing.assert_allclose(np.pad(taps, (0, 2 * radius + 1 - len(taps))), full / full.sum(), atol=1.1e-7)


def test_a_dot_moves_against_the_line() -> None:
    """The blurred dot's centroid lies sum_i i k_i away; taps look ahead, so light moves back."""
    dot = torch.zeros(400, 1, 41, 41)
    dot[:, :, 20, 20] = 1.0
    blurred = MotionBlur()(dot, 3, torch.Generator().manual_seed(0)).double()
    angles = torch.rand(400, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float32) * 90 - 45
    place = torch.arange(41.0, dtype=torch.float64) - 20
    mass = blurred.sum((1, 2, 3))
    right = (blurred.sum((1, 2)) * place).sum(1) / mass
    down = (blurred.sum((1, 3)) * place).sum(1) / mass
    taps = motion_taps(6, 2.0)
    far = float((torch.arange(len(taps)) * taps).sum() / taps.sum())
    radians = torch.deg2rad(angles[:, 0].double())
    assert (right + far * radians.cos()).abs().max() < 0.5
    assert (down + far * radians.sin()).abs().max() < 0.5
    assert float((right + far * radians.cos()).mean().abs()) < 0.1


def test_steps_lie_on_the_line() -> None:
    angles = torch.linspace(-135, 45, 37, dtype=torch.float64)
    steps = motion_steps(angles, 12)
    assert steps.shape == (12, 37, 2)
    radians = torch.deg2rad(angles)
    line = torch.arange(12)[:, None, None] * torch.stack([radians.cos(), radians.sin()], -1)
    assert (steps - line).abs().max() <= 0.5 + 1e-9


def test_constant_images_are_fixed_points() -> None:
    x = (torch.arange(256) / 255).reshape(256, 1, 1, 1).expand(256, 1, 32, 32)
    for severity in MotionBlur.severities:
        assert torch.equal(MotionBlur()(x, severity, torch.Generator()), x)
