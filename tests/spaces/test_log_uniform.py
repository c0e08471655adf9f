"""Logarithms of the draws are uniform, and the seed decides them."""

import math

import pytest
import torch

from levelhead.spaces.log_uniform import LogUniform


def test_logarithms_are_uniform_on_the_range():
    space = LogUniform("sampler.lr", 1e-3, 10.0)
    generator = torch.Generator().manual_seed(0)
    draws = torch.tensor([space.draw(generator) for _ in range(4000)], dtype=torch.float64)
    assert draws.min() >= 1e-3
    assert draws.max() <= 10.0
    u = ((draws / 1e-3).log() / math.log(1e4)).sort().values
    distance = (u - (torch.arange(4000) + 0.5) / 4000).abs().max()  # Kolmogorov's; 1 in 10,000 exceeds 2.2 / sqrt(n)
    assert distance < 2.2 / math.sqrt(4000)


def test_the_seed_decides():
    space = LogUniform()
    assert space.draw(torch.Generator().manual_seed(3)) == space.draw(torch.Generator().manual_seed(3))


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (2.0, 1.0), (1.0, math.inf)])
def test_bad_ranges_are_refused(low, high):
    with pytest.raises(ValueError, match="0 < low <= high"):
        LogUniform("sampler.lr", low, high)
