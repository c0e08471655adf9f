"""BlurPool against explicit padding and convolution, average pooling, and the bounds of a positive filter."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from levelhead.layers import blur_pool
from levelhead.layers.blur_pool import MOST_TAPS, PADDINGS, BlurPool2d, binomial
from levelhead.layers.flc_pool import FLCPool2d

TAPS = range(1, MOST_TAPS + 1)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def explicit(x: Tensor, taps: int, stride: int, padding: str) -> Tensor:
    before, after = (taps - 1) // 2, math.ceil((taps - 1) / 2)
    f = x.new_tensor(binomial(taps))
    padded = F.pad(x, (before, after, before, after), mode=PADDINGS[padding])
    return F.conv2d(padded, torch.outer(f, f).expand(x.shape[1], 1, -1, -1), stride=stride, groups=x.shape[1])


def test_the_filters() -> None:
    rows = [[1], [1, 1], [1, 2, 1], [1, 3, 3, 1], [1, 4, 6, 4, 1], [1, 5, 10, 10, 5, 1], [1, 6, 15, 20, 15, 6, 1]]
    assert [[f * 2 ** (n - 1) for f in binomial(n)] for n in TAPS] == rows


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_it_is_padding_and_a_strided_depthwise_convolution(
    taps: int, padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, stride in product(((8, 8), (9, 7), (12, 15)), (1, 2, 3)):
        x = noise(2, 3, *size)
        layer = BlurPool2d(taps, stride=stride, padding=padding)
        expected = explicit(x, taps, stride, padding)
        assert layer(x).shape[2:] == tuple(math.ceil(s / stride) for s in size)
        assert_close(layer(x), expected)
        assert_close(layer(x.contiguous(memory_format=torch.channels_last)), expected)
        with monkeypatch.context() as patch:
            patch.setattr(blur_pool, "DENSE", 0)  # as on large maps
            assert_close(layer(x), expected)


def test_large_maps_are_convolved() -> None:
    x = noise(1, 2, blur_pool.DENSE + 3, 66)
    assert_close(BlurPool2d(4)(x), explicit(x, 4, 2, "reflect"))


def test_two_taps_are_average_pooling_and_one_is_striding() -> None:
    x = noise(2, 3, 8, 10)
    assert_close(BlurPool2d(2)(x), F.avg_pool2d(x, 2))
    assert_close(BlurPool2d(1)(x), x[:, :, ::2, ::2])


def test_values_stay_within_those_of_the_map_and_constants_stay() -> None:
    x = noise(2, 3, 9, 8)
    for taps, padding in product(TAPS, ("reflect", "replicate", "circular")):
        y = BlurPool2d(taps, padding=padding)(x)
        assert x.min() <= y.min()
        assert y.max() <= x.max()
        constant = BlurPool2d(taps, padding=padding)(torch.full_like(x, 3.0))
        assert_close(constant, torch.full_like(constant, 3.0))


def test_circular_shifts_by_the_stride_shift_the_output_by_one_and_checkerboards_vanish() -> None:
    x = noise(2, 3, 12, 12)
    layer = BlurPool2d(4, padding="circular")
    assert_close(layer(x.roll((2, -4), (2, 3))), layer(x).roll((1, -2), (2, 3)))
    board = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(6)
    assert_close(layer(torch.outer(board, board)[None, None]), torch.zeros(1, 1, 6, 6, dtype=torch.float64))


def moved_by_half(y: Tensor) -> Tensor:
    """y moved by half a pixel along both axes, as its own frequencies say."""
    size = y.shape[2]
    k = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    phase = torch.polar(torch.ones_like(k), -math.pi * k / size)
    rows = torch.fft.ifft2(torch.fft.fft2(y) * phase[:, None]).real
    return torch.fft.ifft2(torch.fft.fft2(rows) * phase).real


@pytest.mark.parametrize("below, plain, blurred, cropped", [(0.5, 1.12, 0.33, 1e-14), (0.25, 0.41, 0.063, 1e-14)])
def test_error_of_a_half_pixel_shift_of_max_pooling(below: float, plain: float, blurred: float, cropped: float) -> None:
    """rms(f(shifted x) - shifted f(x)) / std(f(x)) for x = noise below so many cycles a pixel: 2 x 2 maxima strided,
    before a blur, and before FLC pooling."""
    noise_map = noise(16, 4, 32, 32)
    inside = torch.fft.fftfreq(32, dtype=torch.float64).abs() < below
    x = torch.fft.ifft2(torch.fft.fft2(noise_map) * torch.outer(inside, inside)).real if below < 0.5 else noise_map

    def maxima(z: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(z, (0, 1, 0, 1), mode="circular"), 2, 1)

    def error(pool: Callable[[Tensor], Tensor]) -> float:
        y, moved = pool(x), pool(x.roll((1, 1), (2, 3)))
        return float((moved - moved_by_half(y)).square().mean().sqrt() / y.std())

    assert error(lambda z: F.max_pool2d(z, 2)) == pytest.approx(plain, rel=0.03)
    assert error(lambda z: BlurPool2d(4, padding="circular")(maxima(z))) == pytest.approx(blurred, rel=0.03)
    assert error(lambda z: FLCPool2d(nyquist="zero")(maxima(z))) < cropped


def test_small_maps_get_fewer_taps_or_are_refused() -> None:
    for size in (1, 2, 3):
        for taps in TAPS:
            y = BlurPool2d(taps)(torch.ones(1, 1, size, size))
            assert_close(y, torch.ones(1, 1, math.ceil(size / 2), math.ceil(size / 2)))
    x = noise(1, 1, 2, 2)
    assert_close(BlurPool2d(5)(x), explicit(x, 3, 2, "reflect"))
    with pytest.raises(ValueError, match="a map of 2 pixels is too small for 5 taps with 'reflect' padding"):
        BlurPool2d(5, fallback=False)(x)


def test_sizes_with_margin_in_both_forms() -> None:
    for size, stride, margin, padding in product((4, 5, 9), (2, 3), (-2, -1, 0, 1), PADDINGS):
        layer = BlurPool2d(4, stride=stride, margin=margin, padding=padding)
        x = noise(1, 2, size, size + 1)
        assert layer(x).shape[2:] == (math.ceil((size + margin) / stride), math.ceil((size + 1 + margin) / stride))
        assert_close(layer(x), layer._convolved(x))


def test_gradcheck() -> None:
    x = noise(1, 2, 5, 6).requires_grad_()
    for padding in PADDINGS:
        assert torch.autograd.gradcheck(BlurPool2d(4, padding=padding), (x,))


def test_half_precision_compilation_and_export() -> None:
    x = noise(2, 3, 8, 8).float()
    layer = BlurPool2d(4)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(layer(x), expected, rtol=0, atol=0)
        assert layer(x.to(torch.bfloat16)).dtype == torch.bfloat16
    assert_close(torch.compile(layer, fullgraph=True, backend="eager")(x), expected)
    assert_close(torch.export.export(BlurPool2d(4), (x,)).module()(x), expected)
    assert not layer.state_dict()
    assert repr(BlurPool2d(3, padding="zero")) == "BlurPool2d(taps=3, stride=(2, 2), padding='zero')"


def test_validation() -> None:
    for taps in (0, 8):
        with pytest.raises(ValueError, match=f"BlurPool2d: taps must be from 1 to 7, got {taps}"):
            BlurPool2d(taps)
    with pytest.raises(ValueError, match=r"BlurPool2d: padding must be one of .*; got 'same'"):
        BlurPool2d(padding="same")
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        BlurPool2d(stride=0)
