"""Something in front of a module and behind it, and a parent that does not notice."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from levelhead.layers.around import Around


def test_before_module_after_in_this_order() -> None:
    before, module, after = nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5)
    x = torch.randn(6, 2)
    assert_close(Around(module, before=before, after=after)(x), after(module(before(x))))
    x = torch.randn(6, 3)
    assert torch.equal(Around(module)(x), module(x))


def test_other_arguments_reach_the_module() -> None:
    class Shift(nn.Module):
        def forward(self, x: torch.Tensor, by: float, *, times: float = 1.0) -> torch.Tensor:
            return x + by * times

    x = torch.randn(3)
    assert_close(Around(Shift(), before=nn.ReLU())(x, 2.0, times=3.0), x.relu() + 6)


def test_reads_like_the_module() -> None:
    around = copy.deepcopy(Around(nn.Conv2d(3, 4, 5, stride=2)))
    assert around.stride == (2, 2)
    assert around.weight is around.module.weight
    with pytest.raises(AttributeError, match="colour"):
        _ = around.colour
