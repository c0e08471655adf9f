"""Taps against scipy's design and against tabulated numbers; kernels against their sums."""

import math

import pytest
import torch
from torch.testing import assert_close

from levelhead.layers.kaiser import auto_taps, bank, check_taps, kaiser_beta, kaiser_taps, kernel

CUTOFFS = (1 / 4, 1 / 6, 1 / 8, 1 / 16, 0.4)


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("num", [3, 5, 7, 9, 21])
def test_taps_are_those_of_scipy(cutoff: float, num: int) -> None:
    signal = pytest.importorskip("scipy.signal", reason="scipy has the reference design")
    reference = signal.firwin(num, cutoff, width=2 * (0.5 - cutoff), fs=1.0)
    assert kaiser_taps(cutoff, num) == pytest.approx(tuple(reference / reference.sum()), abs=1e-14)


@pytest.mark.parametrize(
    "cutoff, half",
    [
        (1 / 4, (0.474, 0.263)),
        (1 / 4, (0.519, 0.2405, 0)),
        (1 / 4, (0.5036, 0.2535, 0, -0.0053)),
        (1 / 8, (0.566, 0.217)),
        (1 / 8, (0.475, 0.2475, 0.015)),
        (1 / 8, (0.4012, 0.2491, 0.0497, 0.0007)),
        (1 / 6, (0.527, 0.236)),
        (1 / 6, (0.4767, 0.2458, 0.0158)),
        (1 / 6, (0.4183, 0.2496, 0.0412, 0)),
    ],
)
def test_tabulated_taps(cutoff: float, half: tuple[float, ...]) -> None:
    taps = kaiser_taps(cutoff, 2 * len(half) - 1)
    assert taps[len(half) - 1 :] == pytest.approx(half, abs=6e-4)


@pytest.mark.parametrize("num", [3, 5, 7])
@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_taps_sum_to_one_and_are_symmetric(cutoff: float, num: int) -> None:
    taps = kaiser_taps(cutoff, num)
    assert sum(taps) == pytest.approx(1, abs=1e-15)
    assert taps == pytest.approx(taps[::-1], abs=0)


@pytest.mark.parametrize(
    "cutoff, gains", [(1 / 4, (0.05, 0.04, 0.007)), (1 / 8, (0.13, 0.01, 0.001))], ids=["quarter", "eighth"]
)
def test_gain_at_the_highest_frequency(cutoff: float, gains: tuple[float, ...]) -> None:
    for num, gain in zip((3, 5, 7), gains, strict=True):
        found = sum(tap * (-1) ** k for k, tap in enumerate(kaiser_taps(cutoff, num)))
        assert abs(found) == pytest.approx(gain, rel=0.4, abs=5e-4)


def test_everything_passes_at_half_a_cycle() -> None:
    assert kaiser_taps(0.5, 7) == kaiser_taps(0.1, 1) == (1.0,)


def test_beta_of_kaisers_three_branches() -> None:
    assert kaiser_beta(20) == 0
    assert kaiser_beta(30) == pytest.approx(0.5842 * 9**0.4 + 0.07886 * 9)
    assert kaiser_beta(60) == pytest.approx(0.1102 * 51.3)


def test_number_of_taps_by_size() -> None:
    found = {size: auto_taps(size) for size in (1, 4, 14, 15, 22, 23, 32, 224)}
    assert found == {1: 3, 4: 3, 14: 3, 15: 5, 22: 5, 23: 7, 32: 7, 224: 7}


def test_a_bank_holds_the_shorter_filters_too() -> None:
    assert list(bank(0.25, None)) == [1, 3, 5, 7]
    assert bank(0.25, 9)[5] == kaiser_taps(0.25, 5)


def test_kernels_are_outer_products_for_every_channel() -> None:
    rows, columns = kaiser_taps(1 / 4, 5), kaiser_taps(1 / 8, 3)
    found = kernel(rows, columns, torch.zeros(1, 4, 2, 2, dtype=torch.float64), gain=4)
    assert found.shape == (4, 1, 5, 3)
    for channel in found:
        assert_close(channel[0], 4 * torch.outer(*(torch.tensor(f, dtype=torch.float64) for f in (rows, columns))))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype, off", [(torch.bfloat16, 2**-9), (torch.float16, 2**-12)])
@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_sixteen_bits_keep_the_sum(cutoff: float, dtype: torch.dtype, off: float) -> None:
    taps = kaiser_taps(cutoff, 7)
    found = kernel(taps, taps, torch.zeros(1, 1, 2, 2, dtype=dtype))
    assert found.dtype == dtype
    assert abs(found.double().sum().item() - 1) <= off * found.amax().item() * 2


def test_refusals() -> None:
    for cutoff in (0, 0.6, math.nan):
        with pytest.raises(ValueError, match="cutoff must be in"):
            kaiser_taps(cutoff, 3)
    for num in (0, 4):
        with pytest.raises(ValueError, match="num must be odd"):
            kaiser_taps(0.25, num)
    for taps in (1, 4):
        with pytest.raises(ValueError, match="AliasFree: taps must be odd and at least 3"):
            check_taps("AliasFree", taps)
