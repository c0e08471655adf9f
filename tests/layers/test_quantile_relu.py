"""Quantiles against torch's, and what they promise: channels that keep most of their pixels."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from levelhead.layers.quantile_relu import QuantileReLU, lifted, spatial_quantile

X = torch.randn(4, 3, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("q", [0.05, 0.25, 0.4, 0.5, 0.77, 0.999])
def test_quantiles_and_their_gradients_are_torchs(q: float) -> None:
    x, other = (X.clone().requires_grad_() for _ in range(2))
    m, expected = spatial_quantile(x, q), torch.quantile(other.flatten(2), q, dim=-1)
    assert_close(m[..., 0, 0], expected)
    weights = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
    (m[..., 0, 0] * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_close(x.grad, other.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_ordered_exactly(dtype: torch.dtype) -> None:
    x = X.to(dtype)
    expected = torch.quantile(x.float().flatten(2), 0.4, dim=-1)
    assert_close(spatial_quantile(x, 0.4)[..., 0, 0], expected.to(dtype), rtol=0.01, atol=0.01)
    assert QuantileReLU()(x).dtype == dtype


def test_one_pixel_is_its_own_quantile() -> None:
    x = torch.tensor([-2.0, 3.0]).reshape(1, 2, 1, 1)
    assert torch.equal(QuantileReLU()(x), x.relu())


@pytest.mark.parametrize("q", [0.1, 0.4, 0.9])
def test_the_share_of_clipped_pixels(q: float) -> None:
    x = X + torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)[:, None, None]
    m = spatial_quantile(x, q)
    clipped = (QuantileReLU(q)(x) == 0).double().mean((2, 3))
    low = m[..., 0, 0] < 0
    assert low.any()
    assert not low.all()
    assert (clipped[low] <= q + 1 / 63).all()
    assert torch.equal(QuantileReLU(q)(x)[~low], x.relu()[~low])


def test_without_a_share_it_is_relu_and_positive_channels_stay() -> None:
    assert torch.equal(QuantileReLU(0)(X), F.relu(X))
    assert lifted(X, 0) is X
    assert torch.equal(QuantileReLU(0.4)(X.abs()), X.abs())


def test_a_constant_does_not_matter_while_the_quantile_is_negative() -> None:
    x = X - X.mean((2, 3), keepdim=True) - 1
    m = spatial_quantile(x, 0.4)
    assert (m < 0).all()
    moved = x + 0.9 * -m
    assert_close(QuantileReLU(0.4)(moved), QuantileReLU(0.4)(x))


def test_rows_and_channels_are_apart() -> None:
    assert torch.equal(QuantileReLU()(X)[1:2, 2:], QuantileReLU()(X[1:2, 2:]))


def test_gradients() -> None:
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(QuantileReLU(0.4), x)


@pytest.mark.parametrize("q", [-0.1, 1.0])
def test_refusals(q: float) -> None:
    with pytest.raises(ValueError, match="QuantileReLU: q must be in"):
        QuantileReLU(q)
