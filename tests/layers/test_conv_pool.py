import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from levelhead.layers.conv_pool import ConvPool, convolve_and_pool, larger


def stage(channels: int = 1, out: int = 6, **changes) -> ConvPool:
    return ConvPool(nn.Conv2d(channels, out, kernel_size=5, **changes)).double().train()


def one_by_one(made: ConvPool, x):
    return nn.Sequential(*made.children())(x)


@pytest.mark.parametrize("size", [(28, 28), (13, 16), (12, 15)])
@pytest.mark.parametrize(
    "changes",
    [{}, {"padding": 2}, {"bias": False}, {"channels": 3}, {"out": 16}, {"channels": 6, "out": 16}, {"stride": 2}],
)
def test_it_computes_its_children_and_their_gradients(size, changes):
    made = stage(**changes)
    x = torch.rand(4, changes.get("channels", 1), *size, dtype=torch.float64, requires_grad=True)
    got, expected = made(x), one_by_one(made, x)
    assert_close(got, expected)
    weights = torch.rand_like(expected)
    inputs = [x, *made.parameters()]
    assert_close(torch.autograd.grad(got, inputs, weights), torch.autograd.grad(expected, inputs, weights))


def test_where_pixels_are_equal_the_first_of_a_window_has_the_gradient():
    made = stage()
    x = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64, requires_grad=True)
    assert_close(torch.autograd.grad(made(x).sum(), x), torch.autograd.grad(one_by_one(made, x).sum(), x))


def test_gradients_of_gradients():
    made = stage()
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda z: convolve_and_pool(z, made.conv), x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_maps_lie_whole_however_the_kernels_lie(layout):
    made = stage().to(memory_format=layout)
    assert made(torch.rand(2, 1, 28, 28, dtype=torch.float64)).is_contiguous()


def test_children_are_called_in_evaluation():
    called = []
    made = stage().eval()
    made.conv.forward = lambda x: called.append(x) or torch.zeros(1, 6, 4, 4)  # type: ignore[method-assign]
    made(torch.rand(1, 1, 8, 8, dtype=torch.float64))
    assert len(called) == 1


@pytest.mark.parametrize("name", ["conv", "act", "pool"])
def test_a_hook_is_called(name):
    made, called = stage(), []
    getattr(made, name).register_forward_hook(lambda *args: called.append(name))
    made(torch.rand(1, 1, 8, 8, dtype=torch.float64))
    assert called == [name]


@pytest.mark.parametrize("name, new", [("act", nn.Tanh()), ("pool", nn.AvgPool2d(2)), ("conv", nn.Identity())])
def test_a_child_that_was_replaced_is_called(name, new):
    made = stage()
    setattr(made, name, new)
    x = torch.rand(1, 6, 8, 8, dtype=torch.float64) if name == "conv" else torch.rand(1, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(made(x), one_by_one(made, x))


def test_a_copy_is_its_own():
    made = stage()
    other = copy.deepcopy(made)
    nn.init.zeros_(other.conv.weight)
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    assert not torch.equal(made(x), other(x))


def test_the_larger_of_two():
    a, b = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([2.0, 2.0, -4.0])
    assert torch.equal(larger(a, b), torch.maximum(a, b))
