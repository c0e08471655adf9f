"""Against the loop over pixels of the published definition, with the same draws; both in whole levels."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from shifts.oracle import assert_equal_in_8_bits, pictures

from levelhead.shifts._base import truncated
from levelhead.shifts._filters import gaussian
from levelhead.shifts.glass_blur import GlassBlur, copied, sources

SMALL = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))
LARGE = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))


def loop(pixels: np.ndarray, moves: np.ndarray, reach: int) -> np.ndarray:
    """One pass over an image (height, width, channel); the swap of two views of an array, which copies."""
    pixels = pixels.copy()
    height, width = pixels.shape[:2]
    for h in range(height - reach, reach, -1):
        for w in range(width - reach, reach, -1):
            down, right = moves[:, h - reach - 1, w - reach - 1]
            there = h + down, w + right
            pixels[h, w], pixels[there] = pixels[there], pixels[h, w]
    return pixels


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(image, (sigma, sigma, 0), mode="nearest", truncate=4)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "shape, constants", [((1, 28, 28), SMALL), ((3, 32, 35), SMALL), ((3, 88, 90), LARGE), ((1, 90, 86), LARGE)]
)
def test_equals_the_loop_over_pixels(
    shape: tuple[int, ...], constants: tuple[tuple[float, int, int], ...], severity: int
) -> None:
    sigma, reach, passes = constants[severity - 1]
    x = pictures(2, *shape, seed=severity)
    ours = GlassBlur()(x, severity, torch.Generator().manual_seed(severity))
    tall, wide = shape[1] - 2 * reach, shape[2] - 2 * reach
    drawn = torch.rand(2, passes * 2 * tall * wide, generator=torch.Generator().manual_seed(severity))
    moves = (drawn * 2 * reach).floor().long().reshape(2, passes, 2, tall, wide).numpy() - reach
    for image, steps, result in zip(x.double().numpy(), moves, ours, strict=True):
        # which side a value on a level falls is the first blur's: taken from ours, once it is seen to be right
        start = truncated(gaussian(torch.from_numpy(image).float(), sigma))
        assert_equal_in_8_bits(start, blurred(image.transpose(1, 2, 0), sigma).transpose(2, 0, 1))
        pixels = (255 * start).round().double().numpy().transpose(1, 2, 0)
        for step in steps:
            pixels = loop(pixels, step, reach)
        assert_equal_in_8_bits(result, blurred(pixels / 255, sigma).transpose(2, 0, 1))


@pytest.mark.parametrize("reach", [1, 2, 3, 4])
def test_places_equal_the_loop_s(reach: int) -> None:
    generator = torch.Generator().manual_seed(reach)
    size = (5, 24, 31)
    inner = (5, 24 - 2 * reach, 31 - 2 * reach)
    moves = torch.randint(-reach, reach, (2, *inner), generator=generator)
    numbered = torch.arange(24 * 31).reshape(1, 24, 31).expand(size)
    found = sources(moves, reach, 24, 31)
    for steps, places in zip(moves.movedim(1, 0).numpy(), found, strict=True):
        expected = loop(numbered[0].numpy()[..., None].repeat(3, axis=2), steps, reach)
        np.testing.assert_array_equal(places.numpy(), expected[..., 0])
    x = torch.rand(5, 2, 24, 31, generator=generator)
    assert torch.equal(copied(x, found)[2, 1], x[2, 1].flatten()[found[2]])


def test_with_a_reach_of_one_a_pass_is_a_gather() -> None:
    moves = torch.randint(-1, 1, (2, 1, 30, 30), generator=torch.Generator().manual_seed(0))
    found = sources(moves, 1, 32, 32)[0]
    places = torch.arange(1024).reshape(32, 32)
    for h in range(32):
        for w in range(32):
            down, right = moves[:, 0, h - 2, w - 2].tolist() if h > 1 and w > 1 else (0, 0)
            assert found[h, w] == places[h + down, w + right]


def test_constant_images_are_fixed_points() -> None:
    x = (torch.arange(256) / 255).reshape(256, 1, 1, 1).expand(256, 1, 32, 32)
    for severity in GlassBlur.severities:
        assert torch.equal(GlassBlur()(x, severity, torch.Generator()), x)


def test_tiny_images_have_no_pixels_to_move() -> None:
    x = pictures(2, 3, 2, 2)
    assert torch.equal(GlassBlur(small=((0.0, 3, 1),) * 5)(x, 1, torch.Generator()), x)
