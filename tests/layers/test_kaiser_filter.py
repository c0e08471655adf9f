"""The filter against its transfer function, explicit padding and constant maps."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from levelhead.layers.kaiser import kaiser_taps
from levelhead.layers.kaiser_filter import KaiserFilter
from levelhead.layers.margins import MARGINS, check_margins, extended

X = torch.randn(2, 3, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("padding", MARGINS)
@pytest.mark.parametrize("taps", [3, 5, 7])
def test_it_is_a_convolution_of_the_continued_map(padding: str, taps: int) -> None:
    mode = {"zero": "constant"}.get(padding, padding)
    rows, columns = (torch.tensor(kaiser_taps(fc, taps), dtype=torch.float64) for fc in (1 / 4, 1 / 8))
    wide = F.pad(X, (taps // 2,) * 4, mode=mode)
    expected = F.conv2d(wide, torch.outer(rows, columns).expand(3, 1, taps, taps), groups=3)
    assert_close(KaiserFilter((1 / 4, 1 / 8), taps=taps, padding=padding)(X), expected)
    strided = KaiserFilter((1 / 4, 1 / 8), taps=taps, padding=padding, stride=(2, 3))(X)
    assert_close(strided, expected[:, :, ::2, ::3])


@pytest.mark.parametrize("padding", ["reflect", "replicate", "circular"])
def test_constants_stay_and_borders_darken_with_zeros_alone(padding: str) -> None:
    x = torch.full((1, 2, 9, 5), 3.0, dtype=torch.float64)
    assert_close(KaiserFilter((1 / 4, 1 / 4), padding=padding)(x), x)
    dark = KaiserFilter((1 / 4, 1 / 4), taps=3)(x)
    assert_close(dark[0, 0, 1:-1, 1:-1], x[0, 0, 1:-1, 1:-1])
    assert dark[0, 0, 0, 0] < 2


def test_transfer_function() -> None:
    impulse = torch.zeros(1, 1, 16, 12, dtype=torch.float64)
    impulse[0, 0, 0, 0] = 1
    response = torch.fft.fft2(KaiserFilter((1 / 4, 1 / 8), taps=5, padding="circular")(impulse))[0, 0]

    def gain(cutoff: float, size: int) -> torch.Tensor:
        taps = kaiser_taps(cutoff, 5)
        f = torch.fft.fftfreq(size, dtype=torch.float64)
        return taps[2] + 2 * sum(taps[2 + k] * torch.cos(2 * math.pi * k * f) for k in (1, 2))

    assert_close(response.real, torch.outer(gain(1 / 4, 16), gain(1 / 8, 12)))
    assert response.imag.abs().max() < 1e-12


@pytest.mark.parametrize("taps, gain", [(3, 0.05), (5, 0.04), (7, 0.007)])
def test_a_checkerboard_is_damped_by_the_tabulated_gain(taps: int, gain: float) -> None:
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(8)
    layer = KaiserFilter((1 / 4, 1 / 4), taps=taps, padding="circular")
    stripes = layer(signs.expand(16, 16)[None, None])
    assert stripes.abs().amax().item() == pytest.approx(gain, rel=0.4)
    assert layer(torch.outer(signs, signs)[None, None]).abs().amax().item() == pytest.approx(gain**2, rel=0.9)


def test_nothing_is_filtered_at_half_a_cycle() -> None:
    layer = KaiserFilter((0.5, 0.5))
    assert torch.equal(layer(X), X)
    assert torch.equal(KaiserFilter((0.5, 0.5), stride=(2, 2))(X), X[:, :, ::2, ::2])
    rows = KaiserFilter((0.25, 0.5), padding="circular")
    assert_close(rows(X.mean(2, keepdim=True).expand_as(X)), X.mean(2, keepdim=True).expand_as(X))


def test_taps_go_by_the_smaller_side() -> None:
    wide = torch.randn(1, 1, 14, 40, dtype=torch.float64)
    for fixed, x in ((3, wide), (5, F.pad(wide, (0, 0, 0, 4))), (7, F.pad(wide, (0, 0, 0, 20)))):
        assert torch.equal(KaiserFilter((1 / 4, 1 / 4))(x), KaiserFilter((1 / 4, 1 / 4), taps=fixed)(x))


@pytest.mark.parametrize("padding", MARGINS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_maps_get_fewer_taps(padding: str, size: int) -> None:
    x = torch.randn(1, 2, size, size + 1, dtype=torch.float64)
    y = KaiserFilter((1 / 4, 1 / 4), taps=7, padding=padding)(x)
    assert y.shape == x.shape
    assert y.isfinite().all()


def test_shifts_by_the_stride_come_out_as_shifts_by_one() -> None:
    layer = KaiserFilter((1 / 4, 1 / 4), padding="circular", stride=(2, 2))
    assert_close(layer(X.roll((2, 4), dims=(2, 3))), layer(X).roll((1, 2), dims=(2, 3)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("taps", [3, 5])
def test_values_stay_within_bounds_where_no_tap_is_negative(taps: int) -> None:
    y = KaiserFilter((1 / 4, 1 / 8), taps=taps, padding="replicate")(X)
    assert y.min() >= X.min()
    assert y.max() <= X.max()


def test_half_precision_and_gradients() -> None:
    layer = KaiserFilter((1 / 4, 1 / 4), taps=3)
    assert layer(X.bfloat16()).dtype == torch.bfloat16
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


def test_maps_too_small_to_be_mirrored_or_wrapped_go_on_with_their_last_pixel() -> None:
    x = torch.arange(4.0).reshape(1, 1, 2, 2)
    for padding in ("reflect", "circular"):
        assert torch.equal(extended(x, (3, 0, 0, 0), padding), F.pad(x, (3, 0, 0, 0), mode="replicate"))
    assert extended(x, (0, 0, 0, 0), "reflect") is x
    assert torch.equal(extended(x, (2, 2, 2, 2), "circular"), x.repeat(1, 1, 3, 3))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="KaiserFilter: padding must be one of"):
        KaiserFilter((1 / 4, 1 / 4), padding="same")
    with pytest.raises(ValueError, match="cutoff must be in"):
        KaiserFilter((0.75, 1 / 4))
    with pytest.raises(ValueError, match="KaiserFilter: taps"):
        KaiserFilter((1 / 4, 1 / 4), taps=2)
    with pytest.raises(ValueError, match="X: padding"):
        check_margins("X", "none")
