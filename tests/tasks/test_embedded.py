"""The arrays inside the package."""

import pytest
import torch

from levelhead.tasks.embedded import embedded


def test_arrays_come_as_bytes_in_the_order_asked_for():
    y, x = embedded("digits.npz", "y", "x")
    assert x.dtype == y.dtype == torch.uint8
    assert x.shape == (1797, 1, 8, 8)
    assert y.shape == (1797,)


def test_an_unknown_array_is_an_error():
    with pytest.raises(KeyError, match="nothing"):
        embedded("digits.npz", "nothing")
