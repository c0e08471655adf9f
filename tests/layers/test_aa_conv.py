"""Strided layers without aliases against their filter and their convolution, and against an attack on them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from levelhead.layers.aa_conv import AAConv2d
from levelhead.layers.kaiser_filter import KaiserFilter

X = torch.randn(2, 3, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def conv(stride: int | tuple[int, int] = 2, **options: object) -> nn.Conv2d:
    return nn.Conv2d(3, 4, 3, stride=stride, padding=1, **options).double()  # type: ignore[arg-type]


def test_filter_first_is_the_filter_then_the_layer() -> None:
    layer = conv()
    filtered = KaiserFilter((1 / 4, 1 / 4))(X)
    assert_close(AAConv2d(layer, stride=(2, 2))(X), layer(filtered))


def test_conv_first_is_the_layer_at_stride_one_then_the_filter() -> None:
    layer = conv()
    dense = F.conv2d(X, layer.weight, layer.bias, padding=1)
    expected = KaiserFilter((1 / 4, 1 / 4))(dense)[:, :, ::2, ::2]
    made = AAConv2d(layer, stride=(2, 2), order="conv_first")
    assert_close(made(X), expected)
    assert made.stride == (2, 2)


@pytest.mark.parametrize("stride", [(2, 2), (2, 4), (1, 2)])
@pytest.mark.parametrize("taps", [3, 5, 7])
def test_both_orders_agree_around_the_edge(stride: tuple[int, int], taps: int) -> None:
    layer = conv(stride, padding_mode="circular", bias=False)
    first = AAConv2d(copy.deepcopy(layer), stride=stride, taps=taps, padding="circular")
    last = AAConv2d(layer, stride=stride, taps=taps, padding="circular", order="conv_first")
    assert_close(first(X), last(X), rtol=0, atol=1e-12)


def test_a_layer_without_stride_is_itself_to_the_bit() -> None:
    layer = conv(1)
    assert torch.equal(AAConv2d(layer, stride=(1, 1))(X), layer(X))


def test_shifts_by_the_stride_come_out_as_shifts_by_one() -> None:
    layer = AAConv2d(conv(padding_mode="circular"), stride=(2, 2), padding="circular")
    assert_close(layer(X.roll((2, -4), dims=(2, 3))), layer(X).roll((1, -2), dims=(2, 3)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("taps", [3, 5, 7])
def test_an_attack_on_the_sampling_points_meets_the_filter(taps: int) -> None:
    """Moving even rows and columns alone moves a 1 x 1 strided layer in full; the filter leaves its centre tap."""
    layer = nn.Conv2d(1, 1, 1, stride=2, bias=False).double()
    nn.init.ones_(layer.weight)
    x = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    moved = x.clone()
    moved[:, :, ::2, ::2] = 1
    low = KaiserFilter((1 / 4, 1 / 4), taps=taps, padding="circular")
    free = AAConv2d(layer, stride=(2, 2), taps=taps, padding="circular")
    assert_close((layer(moved) - layer(x)).amin(), torch.ones((), dtype=torch.float64))
    change = free(moved) - free(x)
    centre = sum(tap for k, tap in enumerate(low.filters[0][taps]) if (k - taps // 2) % 2 == 0)
    assert_close(change, torch.full_like(change, centre**2))
    assert change.max() < 0.29
    assert (low(moved) - low(x)).mean().item() == pytest.approx(0.25)  # what survives is the mean, which was there


def test_it_reads_like_the_layer_and_keeps_its_tensors() -> None:
    layer = conv()
    made = AAConv2d(layer, stride=(2, 2))
    assert made.weight is layer.weight
    assert made.kernel_size == (3, 3)
    assert set(made.state_dict()) == {"module.weight", "module.bias"}
    with pytest.raises(AttributeError):
        _ = made.nothing


def test_gradients() -> None:
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    for order in ("filter_first", "conv_first"):
        assert torch.autograd.gradcheck(AAConv2d(conv(), stride=(2, 2), order=order), x)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="AAConv2d: order must be one of"):
        AAConv2d(conv(), stride=(2, 2), order="last")
