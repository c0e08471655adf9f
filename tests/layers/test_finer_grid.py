"""Interpolation against zeros put in by hand; levelled taps against constants."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from levelhead.layers.finer_grid import finer, in_own_precision, levelled
from levelhead.layers.kaiser import kaiser_taps

X = torch.randn(2, 3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("num", [3, 5, 7])
def test_it_is_zeros_between_pixels_and_a_filter(factor: int, num: int) -> None:
    taps = kaiser_taps(1 / 8, num)
    z = torch.zeros(2, 3, 6 * factor, 5 * factor, dtype=torch.float64)
    z[:, :, ::factor, ::factor] = X
    f = torch.tensor(taps, dtype=torch.float64)
    expected = factor**2 * F.conv2d(z, torch.outer(f, f).expand(3, 1, num, num), padding=num // 2, groups=3)
    assert_close(finer(X, taps, factor=factor), expected)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("num", [3, 5, 7])
def test_levelled_taps_keep_constants_and_their_symmetry(factor: int, num: int) -> None:
    taps = levelled(kaiser_taps(1 / (4 * factor), num), factor)
    for offset in range(factor):
        assert sum(taps[offset::factor]) == pytest.approx(1, abs=1e-15)
    assert taps == pytest.approx(taps[::-1])
    y = finer(torch.ones(1, 1, 9, 9, dtype=torch.float64), kaiser_taps(1 / 8, num), factor=factor, level=True)
    inside = y[0, 0, num:-num, num:-num]
    assert_close(inside, torch.ones_like(inside), rtol=0, atol=1e-14)


def test_constants_ripple_otherwise() -> None:
    y = finer(torch.ones(1, 1, 9, 9, dtype=torch.float64), kaiser_taps(1 / 8, 3), factor=2)
    assert y[0, 0, 8, 8].item() == pytest.approx((2 * 0.5662) ** 2, abs=1e-3)
    assert y[0, 0, 9, 9].item() == pytest.approx((4 * 0.2169) ** 2, abs=1e-3)


def test_sixteen_bits_on_cpu_are_widened_and_autocast_does_not_narrow() -> None:
    seen = []

    def act(x: torch.Tensor) -> torch.Tensor:
        seen.append(F.conv2d(x, torch.ones(3, 1, 1, 1, dtype=x.dtype), groups=3).dtype)
        return x

    with torch.autocast("cpu", torch.bfloat16):
        assert in_own_precision(act, X.bfloat16()).dtype == torch.bfloat16
        assert in_own_precision(act, X.float()).dtype == torch.float32
    assert seen == [torch.float32, torch.float32]
