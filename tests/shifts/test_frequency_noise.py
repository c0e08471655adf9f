import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from levelhead.shifts.frequency_noise import FrequencyNoise, ring

GREY = torch.full((4, 2, 28, 28), 0.5)


def noise_of(shift: FrequencyNoise, severity: int, x: torch.Tensor = GREY) -> torch.Tensor:
    return shift(x, severity, torch.Generator().manual_seed(0)) - x


@pytest.mark.parametrize("frequency", [0.1, 0.3, 0.5, 0.9])
def test_no_energy_outside_the_ring(frequency: float) -> None:
    shift = FrequencyNoise(frequency=frequency)
    spectrum = np.abs(np.fft.fft2(noise_of(shift, 2).double().numpy()))
    axis = 2 * np.pi * np.fft.fftfreq(28)
    radius = np.hypot(axis[:, None], axis) / np.pi
    inside = (np.abs(radius - frequency) <= 0.05) & (radius > 0)
    assert inside.any()
    assert spectrum[..., ~inside].max() < 1e-4 * spectrum[..., inside].max()


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("frequency", [0.1, 0.5, 1.0])
def test_every_frequency_has_the_same_norm(severity: int, frequency: float) -> None:
    noise = noise_of(FrequencyNoise(frequency=frequency), severity)
    wanted = torch.full((4,), FrequencyNoise().levels[severity - 1])
    assert_close(noise.square().mean((1, 2, 3)).sqrt(), wanted, rtol=1e-2, atol=0)  # nothing is clipped from mid-grey


def test_disjoint_rings_are_orthogonal_and_together_give_all_but_the_mean() -> None:
    noise = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    edges = torch.linspace(0.01, 1.42, 9, dtype=torch.float64)  # no frequency lies on an edge
    rings = [(float(a + b) / 2, float(b - a) / 2) for a, b in itertools.pairwise(edges)]
    masks = torch.stack([ring(16, 16, f, s - 1e-6) for f, s in rings])
    assert masks.sum(0).max() == 1
    assert int(masks.sum()) == 16 * 9 - 1
    bands = [FrequencyNoise(frequency=f, half_width=s - 1e-6).filtered(noise) for f, s in rings]
    assert_close(sum(bands) + noise.mean((2, 3), keepdim=True), noise)
    for a in range(8):
        for b in range(a):
            assert abs(float((bands[a] * bands[b]).sum())) < 1e-9


@pytest.mark.parametrize("height, width", [(2, 2), (5, 8), (28, 28)])
def test_a_ring_finer_than_the_image_takes_the_nearest_frequencies(height: int, width: int) -> None:
    for frequency in (0.01, 0.2, 0.77, 1.4):
        mask = ring(height, width, frequency, 0.0)
        assert mask.any()
        assert not mask[0, 0]


@pytest.mark.parametrize(
    "fields", [{"frequency": 0.0}, {"frequency": 2.0}, {"half_width": -0.1}, {"levels": (0.1,)}], ids=repr
)
def test_bad_fields_are_named(fields: dict) -> None:
    with pytest.raises(ValueError, match=f"FrequencyNoise: {next(iter(fields))}"):
        FrequencyNoise(**fields)
