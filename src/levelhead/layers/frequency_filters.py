"""Small filters with one width a channel: Gaussian, Laplacian of Gaussian, Gabor. A width of zero is the identity.

Built in float64: in half precision a kernel's sum would be off by 0.4 %.
"""

import math
from collections.abc import Callable, Mapping

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

FAMILIES = ("gaussian", "log", "gabor")
LOG_MODES = ("reference", "proper")
NO_WIDTH = 1e-8  # below it the exponents overflow; the limit is taken
LARGEST_REFERENCE_LOG = 3  # of larger ones the sum comes near zero for some width: weights of 73 at 5, of 1,011 at 7


def identity_kernels(channels: int, size: int) -> Float[Tensor, "channel 1 tap tap"]:
    """1 in the middle and 0 around, in float64."""
    kernels = torch.zeros(channels, 1, size, size, dtype=torch.float64)
    kernels[:, :, size // 2, size // 2] = 1
    return kernels


def gaussian_kernels(sigma: Float[Tensor, " channel"], size: int = 3) -> Float[Tensor, "channel 1 tap tap"]:
    """exp(-r^2 / (2 sigma^2)) / sum, in float64; sigma in pixels."""
    return _where_wide(sigma, size, _gaussian)


def log_kernels(
    sigma: Float[Tensor, " channel"], size: int = 3, *, mode: str = "reference"
) -> Float[Tensor, "channel 1 tap tap"]:
    """Laplacians of Gaussians, L = (1 - r^2 / (2 sigma^2)) exp(-r^2 / (2 sigma^2)), in float64; sigma in pixels.

    mode  "reference"  L / sum(L), as the authors have it: it keeps the mean, sharpens for sigma near 0.5 and blurs from
                       0.9 on. Size 3 alone, since the sum of larger ones comes near zero.
          "proper"     identity + (L - mean(L)) / |L - mean(L)|_1: it keeps the mean and raises what is not.

    Raises ValueError for another mode, and for "reference" with a size above 3.
    """
    if mode not in LOG_MODES:
        raise ValueError(f"log_kernels: mode must be one of {', '.join(map(repr, LOG_MODES))}; got {mode!r}")
    if mode == "reference" and size > LARGEST_REFERENCE_LOG:
        raise ValueError(
            f"log_kernels: of size {size} the sum, by which 'reference' divides, nears zero; use size 3 or 'proper'"
        )
    return _where_wide(sigma, size, _log_over_sum if mode == "reference" else _identity_and_log)


def gabor_kernels(
    sigma: Float[Tensor, " channel"],
    size: int = 3,
    *,
    wavelength: float = 3.0,
    phase: float = 0.0,
    aspect: float = 0.0,
    angle: float = 0.0,
) -> Float[Tensor, "channel 1 tap tap"]:
    """exp(-(u^2 + aspect^2 v^2) / (2 sigma^2)) cos(2 pi u / wavelength + phase), in float64; not normalised.

    u = x cos(angle) + y sin(angle), v = -x sin(angle) + y cos(angle); pixels and radians. With aspect = 0 a kernel is
    constant along v: of size 3, it sums to 3 (1 - exp(-1 / (2 sigma^2))). A width of zero is the identity, and not the
    limit, which is a sum over three pixels.
    """

    def gabor(s: Tensor, y: Tensor, x: Tensor) -> Tensor:
        u = x * math.cos(angle) + y * math.sin(angle)
        v = y * math.cos(angle) - x * math.sin(angle)
        return torch.exp(-(u.square() + (aspect * v).square()) / (2 * s.square())) * torch.cos(
            2 * math.pi * u / wavelength + phase
        )

    return _where_wide(sigma, size, gabor)


KERNELS: Mapping[str, Callable[..., Tensor]] = {
    "gaussian": gaussian_kernels,
    "log": log_kernels,
    "gabor": gabor_kernels,
}


def kernels_of(
    family: str, sigma: Float[Tensor, " channel"], size: int, *, log_mode: str
) -> Float[Tensor, "channel 1 tap tap"]:
    """The kernels of a family by name."""
    return log_kernels(sigma, size, mode=log_mode) if family == "log" else KERNELS[family](sigma, size)


def _where_wide(sigma: Tensor, size: int, kernel: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """kernel(sigma, y, x) for the channels that have a width, the identity for those that have none."""
    sigma = sigma.double()
    wide = sigma > NO_WIDTH
    at = torch.arange(size, dtype=torch.float64, device=sigma.device) - size // 2
    y, x = (rearrange(grid, "h w -> 1 1 h w") for grid in torch.meshgrid(at, at, indexing="ij"))
    made = kernel(rearrange(torch.where(wide, sigma, 1.0), "c -> c 1 1 1"), y, x)
    return torch.where(rearrange(wide, "c -> c 1 1 1"), made, identity_kernels(1, size).to(sigma.device))


def _gaussian(s: Tensor, y: Tensor, x: Tensor) -> Tensor:
    kernels = torch.exp(-(x.square() + y.square()) / (2 * s.square()))
    return kernels / kernels.sum((-2, -1), keepdim=True)


def _log(s: Tensor, y: Tensor, x: Tensor) -> Tensor:
    half = (x.square() + y.square()) / (2 * s.square())
    return (1 - half) * torch.exp(-half)


def _log_over_sum(s: Tensor, y: Tensor, x: Tensor) -> Tensor:
    kernels = _log(s, y, x)
    return kernels / kernels.sum((-2, -1), keepdim=True)


def _identity_and_log(s: Tensor, y: Tensor, x: Tensor) -> Tensor:
    kernels = _log(s, y, x)
    kernels = kernels - kernels.mean((-2, -1), keepdim=True)
    size = kernels.shape[-1]
    return identity_kernels(1, size).to(s.device) + kernels / kernels.abs().sum((-2, -1), keepdim=True)
