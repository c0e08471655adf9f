"""Shifts between pixels against closed forms; errors of layers against the order that theory gives them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from levelhead.analyses.equivariance import band_limited, equivariance_error, shifted
from levelhead.layers.aa_max_pool import AAMaxPool2d
from levelhead.layers.blur_relu import BlurReLU
from levelhead.layers.quantile_relu import QuantileReLU


def noise(below: float, rows: int = 4) -> torch.Tensor:
    return band_limited((rows, 6, 32, 32), below=below, generator=torch.Generator().manual_seed(0)).double()


def test_a_wave_is_shifted_in_its_phase() -> None:
    rows, columns = torch.arange(8.0, dtype=torch.float64)[:, None], torch.arange(12.0, dtype=torch.float64)

    def wave(down: float, right: float) -> torch.Tensor:
        phase = 2 * math.pi * (2 * (rows - down) / 8 + 3 * (columns - right) / 12)
        return torch.cos(phase + 0.3)[None, None]

    assert_close(shifted(wave(0, 0), (0.5, -1.25)), wave(0.5, -1.25))


def test_whole_pixels_are_a_roll_and_two_halves_are_one() -> None:
    x = noise(0.5)
    assert_close(shifted(x, (3, -2)), x.roll((3, -2), dims=(2, 3)))
    smooth = noise(0.25)
    assert_close(shifted(shifted(smooth, (0.5, 0.5)), (0.5, 0.5)), smooth.roll((1, 1), dims=(2, 3)))


def test_noise_has_its_band_and_unit_variance() -> None:
    x = noise(0.25)
    spectrum = torch.fft.fft2(x).abs()
    frequency = torch.fft.fftfreq(32).abs()
    outside = (frequency[:, None] >= 0.25) | (frequency >= 0.25)
    assert spectrum[..., outside].max() < 1e-4 * spectrum.max()
    assert spectrum[..., ~outside].min() > 0
    assert x.std().item() == pytest.approx(1, abs=1e-6)
    assert (torch.fft.fft2(noise(0.5)).abs()[..., 16, 16] > 0).all()  # white: the highest frequency too


def test_convolutions_commute_with_shifts_and_plain_steps_do_not() -> None:
    x = noise(0.25)
    conv = nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular").double()
    assert equivariance_error(conv, x).error < 1e-12
    assert equivariance_error(lambda z: z[..., ::2, ::2], x, shift=(1, 1)).error < 1e-6  # its band is free of aliases
    assert equivariance_error(lambda z: z[..., ::2, ::2], noise(0.5), shift=(1, 1)).error > 0.9


# Half a pixel, white noise below b cycles a pixel: numbers of an independent computation on other noise.
EXPECTED = {
    "relu": (0.62, 0.161, 0.048),
    "up": (0.37, 0.058, 0.015),
    "up and low": (0.19, 0.027, 0.007),
    "quantile .4": (0.53, 0.143, 0.046),
    "quantile .1": (0.23, 0.086, 0.031),
}
LAYERS = {
    "relu": F.relu,
    "up": BlurReLU(1, 2, taps=7, padding="circular"),
    "up and low": BlurReLU(2, 2, taps=7, padding="circular"),
    "quantile .4": QuantileReLU(0.4),
    "quantile .1": QuantileReLU(0.1),
}


@pytest.mark.parametrize("place, below", [(0, 0.5), (1, 0.25), (2, 0.125)])
def test_errors_of_rectifiers(place: int, below: float) -> None:
    x = noise(below)
    found = {name: equivariance_error(layer, x).error for name, layer in LAYERS.items()}
    for name, expected in EXPECTED.items():
        assert found[name] == pytest.approx(expected[place], rel=0.12), name
    assert found["relu"] > found["up"] > found["up and low"]
    assert found["relu"] > found["quantile .4"] > found["quantile .1"]


def test_errors_of_pools() -> None:
    for below, plain, free in ((0.5, 1.12, 0.70), (0.25, 0.415, 0.207)):
        x = noise(below)
        pooled = equivariance_error(lambda z: F.max_pool2d(z, 2), x, shift=(1, 1))
        assert pooled.error == pytest.approx(plain, rel=0.06)
        assert pooled.rows == 4
        layer = AAMaxPool2d(2, 2, taps=7, margin="circular")
        assert equivariance_error(layer, x, shift=(1, 1)).error == pytest.approx(free, rel=0.06)


def test_what_cannot_be_measured_is_refused() -> None:
    x = noise(0.5)
    with pytest.raises(ValueError, match="layer wants to return maps"):
        equivariance_error(lambda z: z.flatten(1), x)
    with pytest.raises(ValueError, match="what comes out is constant"):
        equivariance_error(torch.zeros_like, x)
    with pytest.raises(ValueError, match="below must be"):
        band_limited((1, 1, 4, 4), below=0.6)
