"""What a task measures on its training rows, and nowhere else: moments of the inputs, and of regression targets."""

import torch
from einops import rearrange
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from levelhead.likelihood import Gaussian

CHUNK = 1024  # rows that are converted at once


def moments(x: Shaped[Tensor, "example channel *site"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel or feature, over examples and sites, in the units of batches.

    std^2 = mean (x - mean)^2, in float64 and in two passes, on the CPU: the same numbers whatever the device.
    A constant channel gets std 1, so that standardising keeps it.
    """
    values, weights = byte_levels(x) if x.dtype == torch.uint8 else as_channels(x)
    mean = (values * weights).sum(1)
    std = ((values - rearrange(mean, "c -> c 1")).square() * weights).sum(1).sqrt()
    constant = std <= 1e-12 * mean.abs()  # rounding of the mean, not spread of the data
    return tuple(mean.tolist()), tuple(torch.where(constant, 1.0, std).tolist())


def gaussian(y: Float[Tensor, "example target"]) -> Gaussian:
    """The likelihood that standardises these (training) targets."""
    shift, scale = moments(y)
    return Gaussian(num_targets=y.shape[1], shift=shift, scale=scale)


def as_channels(
    x: Float[Tensor, "example channel *site"],
) -> tuple[Float[Tensor, "channel value"], Float[Tensor, ""]]:
    """All values of every channel, and the weight of each in a mean."""
    values = rearrange(x.cpu().double(), "n c ... -> c (n ...)")
    return values, torch.tensor(1 / values.shape[1], dtype=torch.float64)


def byte_levels(
    x: UInt8[Tensor, "example channel *site"],
) -> tuple[Float[Tensor, "256"], Float[Tensor, "channel 256"]]:
    """The 256 values that pixels can have, and how often each channel has them: 25 times as fast as converting all."""
    counts = torch.zeros(x.shape[1], 256, dtype=torch.float64)
    for part in x.split(CHUNK):
        for channel, pixels in enumerate(rearrange(part.cpu(), "n c ... -> c (n ...)")):
            counts[channel] += torch.bincount(pixels, minlength=256)
    return torch.arange(256, dtype=torch.float64) / 255, counts / (x.numel() // x.shape[1])
