"""Noise by band: a predictor that lives on one frequency is hurt there and nowhere else."""

import math

import pytest
import torch

from levelhead.analyses.band_noise import noise_robustness

STEPS = torch.arange(32)
WAVE = torch.cos(2 * math.pi * 8 * STEPS / 32)  # half of pi radians a pixel


def predict(x: torch.Tensor) -> torch.Tensor:
    """The sign of one wave's amplitude."""
    amplitude = (x[:, 0] * WAVE).mean((1, 2))
    return torch.stack([-amplitude, amplitude], dim=-1)


def test_the_band_of_the_wave_hurts_and_no_other():
    y = torch.arange(200) % 2
    x = 0.5 + 0.01 * (2 * y[:, None, None, None] - 1) * WAVE.expand(200, 1, 32, 32)
    found = noise_robustness(predict, x, y, frequencies=(0.2, 0.5, 0.8), severity=5)
    by = {band.frequency: band for band in found}
    assert by[0.2].accuracy == by[0.8].accuracy == 1
    assert by[0.5].accuracy < 0.95
    assert by[0.5].change == pytest.approx(by[0.5].accuracy - 1)
    assert found == noise_robustness(predict, x, y, frequencies=(0.2, 0.5, 0.8), severity=5, batch_size=7)
