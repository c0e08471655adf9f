"""Every option is drawn as often as another."""

import pytest
import torch

from levelhead.spaces.one_of import OneOf


def test_options_are_equally_likely():
    generator = torch.Generator().manual_seed(0)
    draws = [OneOf("p", ("a", "b", "c")).draw(generator) for _ in range(3000)]
    assert all(abs(draws.count(option) - 1000) < 4 * 26 for option in "abc")  # standard deviation 26


def test_no_options_are_refused():
    with pytest.raises(ValueError, match="at least one value"):
        OneOf("p", ())
