"""Procedural textures of ice for Frost, made once a process from a fixed seed."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

SIDE = 640  # pixels; a texture continues at its opposite border
OCTAVES = (3.0, 8.0, 20.0, 45.0, 100.0)  # periods a side, at the middle of each band
STEEPNESS = 0.3  # an octave's amplitude grows with its frequency by this power
SEED = 20190328

# mean colour and spread of the original's four pictures, as levels of 0 to 255
PALETTES = (
    ((78, 149, 166), (34, 30, 28)),
    ((201, 205, 214), (24, 21, 19)),
    ((138, 153, 165), (32, 28, 25)),
    ((112, 123, 135), (28, 25, 23)),
)
SHARED = 0.95  # the part of a channel's pattern that all three share; their correlation is its square


@functools.cache
def ice() -> Float[Tensor, "texture 3 side side"]:
    """Four coloured textures in [0, 1]: ridges 1 - |noise| of five octaves, stretched along a direction of each."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.stack([_texture(mean, spread, generator) for mean, spread in PALETTES])


@functools.cache
def small_ice() -> Float[Tensor, "texture 3 small small"]:
    """The same at a fifth of the size, as OpenCV's bilinear reduction does it: the middle pixel of five."""
    return ice()[..., 2::5, 2::5].contiguous()


def _texture(mean: tuple[int, ...], spread: tuple[int, ...], generator: torch.Generator) -> Tensor:
    angle = float(torch.rand((), generator=generator)) * torch.pi
    shared = _ridges(angle, generator)
    channels = []
    for level, deviation in zip(mean, spread, strict=True):
        pattern = SHARED * shared + (1 - SHARED**2) ** 0.5 * _ridges(angle, generator)
        channels.append(level + deviation * _standard(pattern))
    return torch.stack(channels).clamp(0, 255).round() / 255


def _ridges(angle: float, generator: torch.Generator) -> Tensor:
    """Zero mean, unit spread; periodic, since each octave is white noise in a band of the Fourier transform."""
    down = torch.fft.fftfreq(SIDE, 1 / SIDE)[:, None]
    right = torch.fft.rfftfreq(SIDE, 1 / SIDE)
    turn = torch.tensor(angle)
    along, across = right * turn.cos() + down * turn.sin(), down * turn.cos() - right * turn.sin()
    frequency = (along.square() * 4 + across.square() / 2).sqrt().clamp_min(1e-3)  # crystals are longer than wide
    total = torch.zeros(SIDE, SIDE)
    for octave in OCTAVES:
        white = torch.fft.rfft2(torch.randn(SIDE, SIDE, generator=generator))
        band = torch.exp(-0.5 * ((frequency / octave).log() / 0.35).square())
        noise = _standard(torch.fft.irfft2(white * band, s=(SIDE, SIDE)))
        total += octave**STEEPNESS * _standard(1 - noise.abs())
    return _standard(total)


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean()) / x.std()
