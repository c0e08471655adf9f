"""Corruptions of a batch as tensor code, beside a NumPy or Pillow loop over its images; severity 3, one thread.

The loops are what the published code does to one image, with the same constants: 8-bit image in, 8-bit image out.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import Contest, Rival
from levelhead.shifts._base import Corruption
from levelhead.shifts.contrast import Contrast
from levelhead.shifts.gaussian_noise import GaussianNoise
from levelhead.shifts.pixelate import Pixelate
from levelhead.shifts.shot_noise import ShotNoise

SEVERITY, SIDE = 3, 32
IMAGES, QUICK_IMAGES = 2000, 100

Picture = NDArray[np.uint8]


def contests(*, quick: bool) -> Iterator[Contest]:
    """A contest a corruption."""
    pixels = np.random.default_rng(0).integers(
        0, 256, (QUICK_IMAGES if quick else IMAGES, SIDE, SIDE, 3), dtype=np.uint8
    )
    x = torch.from_numpy(pixels).movedim(-1, 1).contiguous().float() / 255
    noise = np.random.default_rng(0)
    for shift, one, needs in (
        (GaussianNoise(), lambda image, level: gaussian_noise(image, level, noise), ()),
        (ShotNoise(), lambda image, level: shot_noise(image, level, noise), ()),
        (Contrast(), contrast, ()),
        (Pixelate(), pixelate, ("PIL",)),
    ):
        yield against_loop(shift, x, one, pixels, needs)


def against_loop(
    shift: Corruption[float],
    x: torch.Tensor,
    one: Callable[[Picture, float], Picture],
    pixels: Picture,
    needs: tuple[str, ...],
) -> Contest:
    """The batch at once, and one picture after the other."""
    level = shift.small[SEVERITY - 1]
    generator = torch.Generator().manual_seed(0)
    name = type(shift).__module__.rpartition(".")[2]
    return Contest(
        lambda: shift(x, SEVERITY, generator),
        {
            name: Rival(
                lambda: np.stack([one(image, level) for image in pixels]), needs=needs, what="a loop over images"
            )
        },
    )


def eight_bit(image: NDArray[np.float64]) -> Picture:
    """Clipped to [0, 1], then cut to 256 levels."""
    return np.uint8(np.clip(image, 0, 1) * 255)


def gaussian_noise(image: Picture, level: float, noise: np.random.Generator) -> Picture:
    """x + N(0, level^2)."""
    return eight_bit(image / 255 + noise.normal(size=image.shape, scale=level))


def shot_noise(image: Picture, level: float, noise: np.random.Generator) -> Picture:
    """Poisson(level x) / level."""
    return eight_bit(noise.poisson(image / 255 * level) / level)


def contrast(image: Picture, level: float) -> Picture:
    """Towards the channel's mean."""
    scaled = image / 255
    mean = scaled.mean(axis=(0, 1), keepdims=True)
    return eight_bit((scaled - mean) * level + mean)


def pixelate(image: Picture, level: float) -> Picture:
    """Pillow's box filter down, and up again by the nearest pixel."""
    from PIL import Image

    small = Image.fromarray(image).resize((int(SIDE * level), int(SIDE * level)), Image.Resampling.BOX)
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.NEAREST))
