"""Prob against its formulas; Blur against its transfer function, constant maps and average pooling."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.layers.smooth import PADDINGS, PROBS, Smooth, blur_kernel

X = torch.randn(2, 3, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 8


def smooth(prob: str = "none", **options: object) -> Smooth:
    return Smooth(prob, **options).double()  # type: ignore[arg-type]


FORMULAS = {
    "tanh": lambda x: F.relu(10 * torch.tanh(x / 10)),
    "sigmoid": lambda x: F.relu(40 * (torch.sigmoid(x / 10) - 0.5)),
    "softmax": lambda x: F.relu(10 * torch.softmax(x / 10, dim=1)),
    "clamp": lambda x: x.clamp(0, 6),
    "scale": lambda x: F.relu(x / 5),
    "bn_tanh": lambda x: F.relu(10 * torch.tanh(F.batch_norm(x, None, None, training=True) / 10)),
    "bn": lambda x: F.relu(F.batch_norm(x, None, None, training=True)),
    "none": F.relu,
}


@pytest.mark.parametrize("prob", PROBS)
def test_prob_is_its_formula_and_blur_follows(prob: str) -> None:
    layer = smooth(prob, channels=3)
    assert_close(layer.bounded(X), FORMULAS[prob](X))
    expected = F.avg_pool2d(F.pad(FORMULAS[prob](X), (0, 1, 0, 1)), 2, 1)
    assert_close(layer(X), expected)
    assert_close(smooth(prob, channels=3, taps=(1.0,))(X), FORMULAS[prob](X))  # the ablation without Blur


@pytest.mark.parametrize("prob", ["tanh", "sigmoid", "clamp", "scale", "none"])
def test_without_rectification_it_is_odd_and_the_same_on_maps_that_are_not_negative(prob: str) -> None:
    plain, rectified = smooth(prob, rectify=False), smooth(prob)
    assert_close(plain(-X), -plain(X))
    assert_close(plain(X.relu()), rectified(X))


def test_prob_is_bounded_and_starts_with_slope_one() -> None:
    x = torch.linspace(-50, 50, 1001, dtype=torch.float64)[None, None, None].requires_grad_()
    p = smooth("tanh").bounded(x)
    (slope,) = torch.autograd.grad(p.sum(), x)
    inner = (x > 0) & (x < 50)
    assert (p >= 0).all()
    assert (p < 10).all()
    assert (p[x <= 0] == 0).all()
    assert_close(slope[inner], torch.cosh(x[inner] / 10) ** -2)
    assert_close(smooth("tanh", temperature=1e6).bounded(x), x.relu(), rtol=1e-6, atol=1e-6)
    assert_close(smooth("sigmoid").bounded(x), smooth("tanh", temperature=20.0).bounded(x), rtol=0, atol=1e-13)


def test_reference_padding_is_the_authors_average_pooling() -> None:
    layer = smooth(padding="reference", rectify=False)
    assert_close(layer(X), F.avg_pool2d(X, 2, stride=1, padding=1))
    assert_close(smooth(rectify=False)(X), layer(X)[:, :, 1:, 1:])  # "zero" leaves out the first row and column
    constant = layer(torch.full_like(X, 4.0))
    assert constant.shape == (2, 3, 9, 7)
    assert_close(constant[0, 0, 0, 0], X.new_tensor(1.0))
    assert_close(constant[0, 0, 0, 3], X.new_tensor(2.0))
    assert_close(constant[:, :, 1:-1, 1:-1], torch.full((2, 3, 7, 5), 4.0, dtype=torch.float64))


@pytest.mark.parametrize("taps", [(1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 3.0, 3.0, 1.0), (1.0, 4.0, 6.0, 4.0, 1.0)])
@pytest.mark.parametrize("padding", ["zero", "replicate", "circular"])
def test_general_blur_against_explicit_padding(taps: tuple[float, ...], padding: str) -> None:
    n = len(taps)
    before, after = (n - 1) // 2, math.ceil((n - 1) / 2)
    mode = {"zero": "constant"}.get(padding, padding)
    padded = F.pad(X, (before, after, before, after), mode=mode)
    kernel = torch.outer(torch.tensor(taps), torch.tensor(taps)).double()
    expected = F.conv2d(padded, (kernel / kernel.sum()).expand(3, 1, n, n), groups=3)
    out = smooth(taps=taps, padding=padding, rectify=False)(X)
    assert out.shape == X.shape
    assert_close(out, expected)


@pytest.mark.parametrize("padding", ["replicate", "circular"])
def test_constant_maps_stay(padding: str) -> None:
    x = torch.full((1, 2, 5, 4), 3.0, dtype=torch.float64)
    assert_close(smooth(padding=padding)(x), x)


def test_transfer_function_of_the_box() -> None:
    height, width = 8, 10
    impulse = torch.zeros(1, 1, height, width, dtype=torch.float64)
    impulse[0, 0, 0, 0] = 1
    response = torch.fft.fft2(smooth(padding="circular")(impulse)).abs()[0, 0]
    u = 2 * math.pi * torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    v = 2 * math.pi * torch.fft.fftfreq(width, dtype=torch.float64)
    assert_close(response, (torch.cos(u / 2) * torch.cos(v / 2)).abs())


def test_the_highest_frequencies_vanish() -> None:
    rows = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4)
    for pattern in (torch.outer(rows, rows), rows.expand(8, 8)):
        assert_close(smooth(rectify=False)(pattern[None, None])[..., :-1, :-1], torch.zeros(1, 1, 7, 7).double())


def test_blur_is_linear_and_expands_neither_the_largest_value_nor_the_norm() -> None:
    layer = smooth(padding="circular", rectify=False)
    y = torch.roll(X, 1, dims=0) * 3
    assert_close(layer(X + 2 * y), layer(X) + 2 * layer(y))
    assert layer(X).abs().amax() <= X.abs().amax()
    assert layer(X).norm() <= X.norm()
    assert_close(layer(X).mean((2, 3)), X.mean((2, 3)))
    z = X
    for _ in range(400):
        z = layer(z)
    assert_close(z, X.mean((2, 3), keepdim=True).expand_as(X))


def test_circular_blur_moves_with_the_map() -> None:
    layer = smooth("tanh", padding="circular", rectify=False)
    assert_close(layer(X.roll((3, 2), dims=(2, 3))), layer(X).roll((3, 2), dims=(2, 3)))


def test_noise_variance_falls_to_a_quarter() -> None:
    noise = torch.randn(64, 8, 32, 32)
    out = Smooth("none", rectify=False)(noise)[:, :, :-1, :-1]
    assert out.var() == pytest.approx(0.25, abs=0.003)


def test_keeps_the_memory_format_and_has_nothing_to_learn_or_save() -> None:
    layer = Smooth()
    out = layer(torch.rand(2, 8, 6, 6).contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert not list(layer.parameters())
    assert not layer.state_dict()
    assert "t=10.0" in repr(layer)


def test_gradient() -> None:
    x = X[:1, :2, :4, :3].clone().requires_grad_()
    for padding in PADDINGS:
        torch.autograd.gradcheck(smooth("tanh", padding=padding, rectify=False), (x,))


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"prob must be one of .*; got 'relu'"):
        Smooth("relu")
    with pytest.raises(ValueError, match=r"padding must be one of .*; got 'same'"):
        Smooth(padding="same")
    with pytest.raises(ValueError, match=r"taps .*got \(-1.0, 2.0\)"):
        Smooth(taps=(-1.0, 2.0))
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        Smooth(temperature=0.0)
    with pytest.raises(ValueError, match="number of channels"):
        Smooth("bn")


def test_kernel_sums_to_one() -> None:
    for taps in ((1.0, 1.0), (1.0, 2.0, 1.0), (1.0,)):
        kernel = blur_kernel(taps)
        assert kernel.shape[-1] % 2 == 1
        assert_close(kernel.sum(), torch.tensor(1.0))


def test_batch_norm_variant_learns() -> None:
    layer = Smooth("bn_tanh", channels=3)
    assert isinstance(layer.norm, nn.BatchNorm2d)
    out: Tensor = layer(X.float())
    out.sum().backward()
    assert layer.norm.weight.grad is not None
