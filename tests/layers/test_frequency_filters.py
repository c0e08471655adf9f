"""Kernels against their formulas written out, their symmetries, their sums and their limits."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from levelhead.layers.frequency_filters import (
    FAMILIES,
    KERNELS,
    gabor_kernels,
    gaussian_kernels,
    identity_kernels,
    kernels_of,
    log_kernels,
)

SIGMAS = torch.tensor([0.2, 0.5, 1.0, 3.0], dtype=torch.float64)
DELTA = identity_kernels(1, 3)[0, 0]
BOX = torch.full((3, 3), 1 / 9, dtype=torch.float64)


def one(family: str, sigma: float, size: int = 3, **options: object) -> Tensor:
    return KERNELS[family](torch.tensor([sigma]), size, **options)[0, 0]


def slow(family: str, s: float, size: int) -> Tensor:
    """Tap by tap, in Python."""
    taps = torch.empty(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            y, x = i - size // 2, j - size // 2
            half = (x * x + y * y) / (2 * s * s)
            taps[i, j] = {
                "gaussian": math.exp(-half),
                "log": -(1 - half) * math.exp(-half) / (math.pi * s**4),
                "gabor": math.exp(-x * x / (2 * s * s)) * math.cos(2 * math.pi * x / 3),
            }[family]
    return taps if family == "gabor" else taps / taps.sum()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sigma", [0.2, 0.45, 1.0, 2.7])
def test_kernels_are_their_formulas(family: str, sigma: float) -> None:
    sigma = float(torch.tensor(sigma))  # as float32 has it
    assert_close(one(family, sigma), slow(family, sigma, 3))
    if family != "log":
        assert_close(one(family, sigma, 7), slow(family, sigma, 7))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_channel_without_width_is_left_as_it_is(family: str) -> None:
    kernels = kernels_of(family, torch.tensor([0.0, 1.0, 1e-9]), 3, log_mode="reference")
    assert kernels.dtype == torch.float64
    assert torch.equal(kernels[0, 0], DELTA)
    assert torch.equal(kernels[2, 0], DELTA)
    assert not torch.equal(kernels[1, 0], DELTA)


def test_gaussians_are_means_with_all_symmetries_of_the_square() -> None:
    for size in (3, 5):
        for kernel in gaussian_kernels(SIGMAS, size)[:, 0]:
            assert (kernel >= 0).all()
            assert_close(kernel.sum(), torch.ones((), dtype=torch.float64))
            for other in (kernel.T, kernel.flip(0), kernel.flip(1), kernel.rot90()):
                assert_close(other, kernel)
            assert_close(torch.outer(kernel.sum(1), kernel.sum(0)), kernel)  # separable
    assert_close(one("gaussian", 0.05), DELTA)
    assert_close(one("gaussian", 1e3), BOX, atol=1e-6, rtol=0)
    assert_close(
        one("gaussian", 1.0)[0], torch.tensor([0.0751, 0.1238, 0.0751], dtype=torch.float64), atol=1e-4, rtol=0
    )


def test_reference_laplacians_sum_to_one_sharpen_and_then_blur() -> None:
    fine = torch.linspace(0.2, 3, 2801, dtype=torch.float64)
    assert_close(log_kernels(fine).sum((-2, -1)), torch.ones(2801, 1, dtype=torch.float64))
    assert log_kernels(fine).abs().max() < 8  # the sum has no zero in this range
    assert_close(one("log", 0.05), DELTA)
    assert_close(one("log", 1e3), BOX, atol=1e-5, rtol=0)
    at_one = one("log", 1.0)
    assert torch.equal(at_one[::2, ::2], torch.zeros(2, 2, dtype=torch.float64))
    assert_close(at_one[1], torch.tensor([0.137, 0.452, 0.137], dtype=torch.float64), atol=1e-3, rtol=0)
    assert float(one("log", 0.4)[1, 1]) == pytest.approx(1.71, abs=0.01)
    assert float(one("log", 0.57)[1, 1]) == pytest.approx(6.47, abs=0.05)


def test_larger_reference_laplacians_are_refused_with_reason() -> None:
    with pytest.raises(ValueError, match="'proper'"):
        log_kernels(SIGMAS, 5)
    with pytest.raises(ValueError, match="mode must be one of"):
        log_kernels(SIGMAS, mode="sharp")


@pytest.mark.parametrize("size", [3, 5, 7])
def test_proper_laplacians_add_to_the_identity_what_sums_to_zero(size: int) -> None:
    kernels = log_kernels(torch.linspace(0.2, 3, 57), size, mode="proper")
    added = kernels - identity_kernels(1, size)
    assert_close(added.sum((-2, -1)), torch.zeros(57, 1, dtype=torch.float64), atol=1e-12, rtol=0)
    assert_close(added.abs().sum((-2, -1)), torch.ones(57, 1, dtype=torch.float64))
    assert (kernels[:, 0, size // 2, size // 2] > 1).all()  # it sharpens


def test_gabor_columns_mirror_one_another_and_rows_are_alike() -> None:
    for sigma, kernel in zip(SIGMAS, gabor_kernels(SIGMAS)[:, 0], strict=True):
        assert kernel[1, 1] == 1
        assert_close(kernel.flip(1), kernel)
        assert torch.equal(kernel[0], kernel[1])
        assert torch.equal(kernel[0], kernel[2])
        assert_close(kernel.sum(), 3 * (1 - torch.exp(-1 / (2 * sigma**2))))
    turned = gabor_kernels(SIGMAS, angle=math.pi / 2)
    assert_close(turned, gabor_kernels(SIGMAS).mT)
    assert_close(one("gabor", 0.05), torch.tensor([[0.0, 1.0, 0.0]] * 3, dtype=torch.float64))
    narrower = gabor_kernels(SIGMAS, aspect=1.0)[:, 0]
    assert (narrower[:, 0, 1] < 1).all()
