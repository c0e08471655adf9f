"""Draws are uniform on the range."""

import pytest
import torch

from levelhead.spaces.uniform import Uniform


def test_draws_are_uniform_on_the_range():
    generator = torch.Generator().manual_seed(0)
    draws = torch.tensor([Uniform("p", -1.0, 3.0).draw(generator) for _ in range(4000)], dtype=torch.float64)
    assert draws.min() >= -1
    assert draws.max() <= 3
    assert abs(draws.mean() - 1) < 4 * (4 / 12**0.5) / 4000**0.5
    assert abs(draws.var() - 16 / 12) < 0.1


def test_bad_ranges_are_refused():
    with pytest.raises(ValueError, match="low <= high"):
        Uniform("p", 2.0, 1.0)
