"""Max-pooling on a finer grid against the same steps by hand, torch's sizes, and the sampling points it keeps."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from levelhead.layers.aa_max_pool import AAMaxPool2d
from levelhead.layers.kaiser import auto_taps, kaiser_taps
from levelhead.layers.margins import MARGINS

X = torch.randn(2, 3, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def step_by_step(x: torch.Tensor, k: int, s: int, p: int, before: int, behind: int) -> torch.Tensor:
    """Around the edge: every fine point, then the ones on which the windows are centred."""

    def filtered(z: torch.Tensor, cutoff: float, num: int) -> torch.Tensor:
        f = torch.tensor(kaiser_taps(cutoff, num), dtype=z.dtype)
        wide = F.pad(z, (num // 2,) * 4, mode="circular")
        return F.conv2d(wide, torch.outer(f, f).expand(z.shape[1], 1, num, num), groups=z.shape[1])

    z = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype)
    z[:, :, ::2, ::2] = x
    dense = 2 * k - 1
    fine = 4 * filtered(z, 1 / (2 * dense), before)
    high = F.max_pool2d(F.pad(fine, (dense // 2,) * 4, mode="circular"), dense, 1)
    low = filtered(high, 1 / (4 * s), behind).roll((-(k - 1 - 2 * p),) * 2, dims=(2, 3))
    h, w = F.max_pool2d(x, k, s, p).shape[2:]
    return low[:, :, :: 2 * s, :: 2 * s][:, :, :h, :w]


@pytest.mark.parametrize("taps", [None, 3, 5, 7])
@pytest.mark.parametrize("k, s, p", [(2, 2, 0), (3, 2, 1), (3, 2, 0), (3, 1, 1), (4, 2, 1)])
def test_it_is_its_steps(k: int, s: int, p: int, taps: int | None) -> None:
    before, behind = (taps or auto_taps(size) for size in (12, 24))
    layer = AAMaxPool2d(k, s, p, taps=taps, margin="circular")
    assert_close(layer(X), step_by_step(X, k, s, p, before, behind))


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("k, s, p", [(2, 2, 0), (3, 2, 1), (3, 2, 0), (2, 3, 1), (1, 2, 0)])
def test_sizes_are_torchs(k: int, s: int, p: int, margin: str) -> None:
    for size in (3, 7, 8, 9):
        x = torch.rand(1, 1, size, size + 1)
        for ceil in (False, True):
            expected = F.max_pool2d(x, k, s, p, ceil_mode=ceil).shape
            assert AAMaxPool2d(k, s, p, ceil_mode=ceil, margin=margin)(x).shape == expected


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("k, s, p", [(2, 2, 0), (3, 2, 1), (3, 2, 0)])
@pytest.mark.parametrize("size", [24, 25])
def test_on_a_ramp_it_is_torchs_inside(size: int, k: int, s: int, p: int, margin: str) -> None:
    """The largest pixel of a window of a ramp is half a window ahead of its centre: were the sampling points half a
    pixel off, every value would be."""
    ramp = torch.arange(float(size), dtype=torch.float64)[:, None].expand(size, 24)[None, None]
    expected = F.max_pool2d(ramp, k, s, p)
    found = AAMaxPool2d(k, s, p, taps=7, margin=margin, level=True)(ramp)
    assert_close(found[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3])


@pytest.mark.parametrize("taps, value", [(3, 1.112), (5, None), (7, 1.003)])
def test_constants(taps: int, value: float | None) -> None:
    one = torch.ones(1, 1, 32, 32, dtype=torch.float64)
    if value is not None:
        assert AAMaxPool2d(2, 2, taps=taps)(one)[0, 0, 8, 8].item() == pytest.approx(value, abs=6e-4)
    for margin in ("reflect", "replicate", "circular"):
        pooled = AAMaxPool2d(2, 2, taps=taps, margin=margin, level=True)(3 * one)
        assert_close(pooled, torch.full_like(pooled, 3), rtol=0, atol=1e-14)


def test_five_taps_then_seven() -> None:
    one = torch.ones(1, 1, 20, 20, dtype=torch.float64)
    assert AAMaxPool2d(2, 2)(one)[0, 0, 5, 5].item() == pytest.approx(1.034, abs=6e-4)


def test_shifts_by_the_stride_come_out_as_shifts_by_one() -> None:
    layer = AAMaxPool2d(3, 2, 1, margin="circular")
    assert_close(layer(X.roll((2, -4), dims=(2, 3))), layer(X).roll((1, -2), dims=(2, 3)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("taps", [3, 5])
def test_levelled_it_stays_within_bounds(taps: int) -> None:
    y = AAMaxPool2d(2, 2, taps=taps, margin="replicate", level=True)(X)
    assert y.min() >= X.min()
    assert y.max() <= X.max()


def test_pixels_that_are_not_there_never_win() -> None:
    x = torch.full((1, 1, 8, 8), -5.0, dtype=torch.float64)
    assert AAMaxPool2d(3, 2, 1, taps=3, level=True)(x)[0, 0, 1, 1].item() == pytest.approx(-5)


@pytest.mark.parametrize("margin", MARGINS)
def test_small_maps(margin: str) -> None:
    for size in (1, 2, 3):
        x = torch.rand(1, 1, size, size, dtype=torch.float64)
        y = AAMaxPool2d(2, 2, ceil_mode=True, taps=7, margin=margin)(x)
        assert y.shape == ((1, 1, 1, 1) if size < 3 else (1, 1, 2, 2))
        assert y.isfinite().all()


@pytest.mark.parametrize("margin", ["zero", "reflect"])
def test_gradients(margin: str) -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(AAMaxPool2d(2, 2, margin=margin), x)


def test_half_precision() -> None:
    assert AAMaxPool2d(2, 2)(X.bfloat16()).dtype == torch.bfloat16


def test_refusals() -> None:
    for arguments in ((0, 2, 0), (2, 0, 0), (2, 2, 2)):
        with pytest.raises(ValueError, match="AAMaxPool2d: kernel_size and stride"):
            AAMaxPool2d(*arguments)
    with pytest.raises(ValueError, match="AAMaxPool2d: padding must be one of"):
        AAMaxPool2d(2, 2, margin="same")
