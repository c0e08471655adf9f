"""How far a layer is from one that moves with its map: what a shift between pixels does before it, and behind it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Equivariance(NamedTuple):
    """Of one layer and one shift.

    error  rms(f(S x) - S f(x)) / std(f(x)): 0 where the layer commutes with the shift, whatever the map's size; above 1
           what moves is worse than a guess.
    rows   maps behind it.
    """

    error: float
    rows: int


def equivariance_error(
    layer: Callable[[Tensor], Tensor],
    x: Float[Tensor, "batch channel h w"],
    *,
    shift: tuple[float, float] = (0.5, 0.5),
) -> Equivariance:
    """rms(f(S x) - S' f(x)) / std(f(x)), S the band-limited shift by `shift` pixels, around the edge.

    S' is the same shift on the pixels of f(x): half as many of them behind a stride of 2. Give layers whose padding is
    circular: others differ at the border in addition. A layer that does not alias has 0 for every band-limited x.

    layer  (batch, channel, h, w) -> (batch, channel', h', w'); run as it is, without gradient.
    shift  down and to the right.

    Needs no training and no labels. Raises ValueError where what comes out is constant, or no map.
    """
    with torch.no_grad():
        straight, moved = layer(x), layer(shifted(x, shift))
    if straight.ndim != 4:
        raise ValueError(f"equivariance_error: layer wants to return maps, got shape {tuple(straight.shape)}")
    spread = float(straight.std())
    if spread == 0:
        raise ValueError("equivariance_error: what comes out is constant, so its shift cannot be told")
    down, right = (
        by * after / before for by, after, before in zip(shift, straight.shape[2:], x.shape[2:], strict=True)
    )
    difference = moved - shifted(straight, (down, right))
    return Equivariance(float(difference.square().mean().sqrt()) / spread, len(x))


def shifted(x: Float[Tensor, "batch channel h w"], by: tuple[float, float]) -> Float[Tensor, "batch channel h w"]:
    """The map, moved down and to the right by any number of pixels, around the edge: F^-1 [e^(-2 pi i f s) F x].

    Whole numbers are torch.roll. The highest frequency of an even size has no partner, and is left as its real part.
    """
    turn = _phase(x.shape[2], by[0], x)[:, None] * _phase(x.shape[3], by[1], x)
    return torch.fft.ifft2(torch.fft.fft2(x) * turn).real.to(x.dtype)


def band_limited(
    shape: tuple[int, int, int, int], *, below: float, generator: torch.Generator | None = None
) -> Float[Tensor, "batch channel h w"]:
    """White noise with the frequencies below `below` cycles a pixel along both axes (1/2: all), of unit variance."""
    if not 0 < below <= 0.5:
        raise ValueError(f"band_limited: below must be in (0, 1/2] cycles a pixel, got {below}")
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    kept = [(torch.fft.fftfreq(size, dtype=torch.float64).abs() < below) | (below == 0.5) for size in shape[2:]]
    z = torch.fft.ifft2(torch.fft.fft2(x) * torch.outer(*kept)).real
    return (z / z.std()).to(torch.get_default_dtype())


def _phase(size: int, by: float, like: Tensor) -> Tensor:
    frequency = torch.fft.fftfreq(size, dtype=like.dtype, device=like.device)
    return torch.polar(torch.ones_like(frequency), -2 * torch.pi * by * frequency)
