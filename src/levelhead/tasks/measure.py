"""What a task measures on its training rows, and nowhere else: moments of the inputs, and of regression targets."""

import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from levelhead.predictive import Gaussian
from levelhead.tasks.split import as_float

CHUNK = 4096  # rows that are held in float64 at once


def moments(x: Shaped[Tensor, "example channel *site"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel or feature, over examples and sites, in the units of batches.

    std^2 = mean (x - mean)^2, in float64 and in two passes. A constant one gets std 1, so that standardising keeps it.
    """
    mean = torch.stack([channel_sums(part) for part in x.split(CHUNK)]).sum(0) / per_channel(x)
    squares = torch.stack([channel_sums(part, centre=mean) for part in x.split(CHUNK)]).sum(0)
    std = (squares / per_channel(x)).sqrt()
    constant = std <= 1e-12 * mean.abs()  # rounding of the mean, not spread of the data
    return tuple(mean.tolist()), tuple(torch.where(constant, 1.0, std).tolist())


def gaussian(y: Float[Tensor, "example target"]) -> Gaussian:
    """The likelihood that standardises these (training) targets."""
    shift, scale = moments(y)
    return Gaussian(num_targets=y.shape[1], shift=shift, scale=scale)


def per_channel(x: Shaped[Tensor, "example channel *site"]) -> int:
    """How many numbers one channel has."""
    return x.numel() // x.shape[1]


def channel_sums(
    x: Shaped[Tensor, "example channel *site"], *, centre: Float[Tensor, " channel"] | None = None
) -> Float[Tensor, " channel"]:
    """Sum of x, or of (x - centre)^2, a channel, on the CPU in float64: the same numbers whatever the device."""
    values = rearrange(as_float(x.cpu()).double(), "n c ... -> c (n ...)")
    if centre is not None:
        values = (values - rearrange(centre, "c -> c 1")).square()
    return values.sum(1)
