"""FLC pooling against its literal form (fft2, shift, crop, shift, ifft2, real), and what a cropped spectrum must do."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from levelhead.layers.blur_pool import BlurPool2d
from levelhead.layers.flc_pool import IMPLEMENTATIONS, LEGACY, NYQUIST, PADS, WINDOWS, FLCPool2d

SIZES = tuple(range(2, 65))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def literal(x: Tensor, *, windowed: bool = False) -> Tensor:
    """Section by section, with complex output."""
    (h, w), (m, n) = x.shape[2:], (math.ceil(s / 2) for s in x.shape[2:])
    spectrum = torch.fft.fftshift(torch.fft.fft2(x, norm="forward"), dim=(2, 3))
    if windowed:
        a, b = (torch.hamming_window(s, periodic=False, dtype=torch.float64) for s in (h, w))
        spectrum = spectrum * torch.outer(a, b).sqrt()
    top, left = h // 2 - m // 2, w // 2 - n // 2
    kept = spectrum[:, :, top : top + m, left : left + n]
    return torch.fft.ifft2(torch.fft.ifftshift(kept, dim=(2, 3)), norm="forward")


def upsampled(y: Tensor) -> Tensor:
    """Zero-padding of the spectrum to twice the size; y without energy at its highest frequencies."""
    m, n = y.shape[2:]
    spectrum = torch.fft.fftshift(torch.fft.fft2(y, norm="forward"), dim=(2, 3))
    padded = y.new_zeros(*y.shape[:2], 2 * m, 2 * n, dtype=torch.complex128)
    padded[:, :, m - m // 2 : 2 * m - m // 2, n - n // 2 : 2 * n - n // 2] = spectrum
    return torch.fft.ifft2(torch.fft.ifftshift(padded, dim=(2, 3)), norm="forward").real


def band_limited(size: int, below: float, *, seed: int = 0) -> Tensor:
    """White noise without frequencies of `below` cycles a map or more, on either axis."""
    spectrum = torch.fft.fft2(noise(2, 3, size, size, seed=seed))
    k = torch.fft.fftfreq(size, 1 / size).abs() < below
    return torch.fft.ifft2(spectrum * torch.outer(k, k)).real


@pytest.mark.parametrize("size", [(8, 8), (14, 14), (7, 10), (6, 5), (12, 3), (2, 2), (1, 4), (64, 56)], ids=str)
def test_both_forms_are_the_literal_one_in_either_layout(size: tuple[int, int]) -> None:
    x = noise(2, 3, *size)
    for impl in IMPLEMENTATIONS:
        layer = FLCPool2d(impl=impl)
        assert_close(layer(x), literal(x).real)
        inner = layer(x.contiguous(memory_format=torch.channels_last))
        assert_close(inner, literal(x).real)
        assert inner.is_contiguous(memory_format=torch.channels_last) or min(size) < 3 or impl == "fft"


def test_windowed_and_legacy_forms_are_the_literal_ones() -> None:
    for size in ((8, 12), (7, 6), (14, 14)):
        x = noise(2, 3, *size)
        assert_close(FLCPool2d(window="hamming")(x), literal(x, windowed=True).real)
        assert_close(FLCPool2d(legacy="gain4")(x), 4 * literal(x).real)
        assert_close(FLCPool2d(legacy="abs")(x), 4 * literal(x).abs())


def test_a_constant_comes_out_constant_at_every_size() -> None:
    for height, width in zip(SIZES, reversed(SIZES), strict=True):
        y = FLCPool2d()(torch.ones(1, 1, height, width, dtype=torch.float64))
        assert y.shape == (1, 1, math.ceil(height / 2), math.ceil(width / 2))
        assert_close(y, torch.ones_like(y), rtol=0, atol=4e-14)


def test_the_mean_stays_the_mean_square_does_not_grow_and_it_is_linear() -> None:
    x, z = noise(2, 3, 12, 10), noise(2, 3, 12, 10, seed=1)
    for options in ({}, {"nyquist": "zero"}, {"impl": "fft"}):
        layer = FLCPool2d(**options)  # type: ignore[arg-type]
        y = layer(x)
        assert_close(y.mean((2, 3)), x.mean((2, 3)))
        assert (y.square().mean((2, 3)) <= x.square().mean((2, 3))).all()
        assert_close(layer(2 * x - z), 2 * y - layer(z))
        assert y.dtype == torch.float64


@pytest.mark.parametrize("nyquist, at_half", [("average", 0.5), ("zero", 0.0), ("keep", 1.0)])
def test_cosines_pass_below_the_new_limit_and_vanish_above(nyquist: str, at_half: float) -> None:
    size, kept = 16, 8
    place, coarse = torch.arange(size, dtype=torch.float64), torch.arange(kept, dtype=torch.float64)
    for impl, k in product(("matrix", "fft"), range(size // 2 + 1)):
        layer = FLCPool2d(nyquist=nyquist, impl=impl)
        wave = torch.cos(2 * math.pi * k * place / size)
        gain = 1.0 if k < kept / 2 else at_half if k == kept / 2 else 0.0
        expected = gain * torch.cos(2 * math.pi * k * coarse / kept)
        along = layer(wave[:, None].expand(size, 6)[None, None])
        assert_close(along, expected[:, None].expand(kept, 3)[None, None])
        across = layer(wave.expand(6, size)[None, None])
        assert_close(across, expected.expand(3, kept)[None, None])
    sine = torch.sin(2 * math.pi * (kept // 2) * place / size)
    assert FLCPool2d(nyquist=nyquist)(sine.expand(1, 1, 4, size)).abs().max() < 1e-15


def test_shifts_by_whole_and_half_output_pixels() -> None:
    x = noise(2, 3, 16, 20)
    layer = FLCPool2d()
    assert_close(layer(x.roll((4, -6), (2, 3))), layer(x).roll((2, -3), (2, 3)), rtol=0, atol=4e-15)
    y = FLCPool2d(nyquist="zero")(x)
    k = torch.fft.fftfreq(8, 1 / 8, dtype=torch.float64)
    half = torch.polar(torch.ones_like(k), -math.pi * k / 8)[:, None]
    expected = torch.fft.ifft2(torch.fft.fft2(y) * half).real
    assert_close(FLCPool2d(nyquist="zero")(x.roll(1, 2)), expected, rtol=0, atol=4e-15)
    assert (F.max_pool2d(x, 2) - F.max_pool2d(x.roll(1, 2), 2)).abs().max() > 1  # what it is compared with


def test_it_is_plain_striding_where_nothing_can_alias() -> None:
    x = band_limited(16, 4)
    assert_close(FLCPool2d()(x), x[:, :, ::2, ::2])
    assert_close(FLCPool2d(4)(band_limited(16, 2)), band_limited(16, 2)[:, :, ::4, ::4])


def test_twice_is_once_at_a_stride_of_four_and_back_up_is_the_identity() -> None:
    x = noise(2, 3, 24, 40)
    layer, once = FLCPool2d(nyquist="zero"), FLCPool2d(4, nyquist="zero")
    assert_close(layer(layer(x)), once(x))
    for size in (7, 9):
        y = noise(2, 3, size, size)
        assert_close(FLCPool2d()(upsampled(y)), y)
    assert_close(FLCPool2d()(upsampled(band_limited(8, 4))), band_limited(8, 4))


def test_the_gradient_is_the_way_back_up_over_four() -> None:
    x, g = noise(2, 3, 14, 10).requires_grad_(), noise(2, 3, 7, 5, seed=1)
    (found,) = torch.autograd.grad(FLCPool2d()(x), x, g)
    assert_close(found, upsampled(g) / 4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"impl": "fft"},
        {"nyquist": "keep"},
        {"pad": "reflect"},
        {"window": "hamming", "pad": "double"},
        {"legacy": "abs"},
    ],
    ids=str,
)
def test_gradcheck(options: dict[str, str]) -> None:
    x = noise(1, 1, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(FLCPool2d(**options), (x,))  # type: ignore[arg-type]
    assert torch.autograd.gradgradcheck(FLCPool2d(**options), (x,))  # type: ignore[arg-type]


def test_reflection_leaves_no_step_at_the_borders() -> None:
    for size in range(2, 20):
        ramp = torch.arange(size, dtype=torch.float64).expand(1, 1, size, size)
        plain, reflected = (FLCPool2d(pad=pad)(ramp)[0, 0, 0] for pad in (None, "reflect"))
        grid = ramp[0, 0, 0, ::2]
        assert reflected.shape == grid.shape
        if size >= 8:
            assert (reflected - grid).abs().max() < 0.5 < (plain - grid).abs().max(), size
        y = FLCPool2d(pad="reflect")(torch.ones(1, 1, size, size, dtype=torch.float64))
        assert_close(y, torch.ones_like(y))


def test_reflection_is_an_explicitly_reflected_map_cut_off_again() -> None:
    x = noise(2, 3, 16, 12)
    padded = F.pad(x, (6, 6, 8, 8), mode="reflect")
    assert_close(FLCPool2d(pad="reflect")(x), FLCPool2d()(padded)[:, :, 4:12, 3:9])
    assert_close(FLCPool2d(pad="double")(x), FLCPool2d()(F.pad(x, (6, 6, 8, 8)))[:, :, 4:12, 3:9])


def test_weight_of_the_window_at_the_mean() -> None:
    for size, weight in ((8, 0.954), (16, 0.990), (32, 0.998), (7, 1.0)):
        y = FLCPool2d(window="hamming")(torch.ones(1, 1, size, size, dtype=torch.float64))
        assert float(y.mean()) == pytest.approx(weight, abs=5e-4)
    odd = FLCPool2d(window="hamming", pad="one")(torch.ones(1, 1, 8, 8, dtype=torch.float64))
    assert odd.shape == (1, 1, 4, 4)
    assert float(odd.mean()) == pytest.approx(64 / 81, abs=0.02)  # a zero row and column are part of the mean


def test_sizes_with_margin_and_stride() -> None:
    for size, stride, margin in product((5, 8, 9, 16), (1, 2, 3), (0, -1, -2)):
        y = FLCPool2d(stride, margin=margin)(torch.ones(1, 1, size, size + 1))
        assert y.shape[2:] == (math.ceil((size + margin) / stride), math.ceil((size + 1 + margin) / stride))
        assert_close(y, torch.ones_like(y))
    assert FLCPool2d((2, 1))(torch.ones(1, 1, 8, 6)).shape == (1, 1, 4, 6)
    x = noise(1, 1, 4, 4)
    assert_close(FLCPool2d(1)(x), x)
    with pytest.raises(ValueError, match=r"a map of \(1, 1\) pixels cannot be cropped to \(0, 0\)"):
        FLCPool2d(margin=-1)(torch.ones(1, 1, 1, 1))


def test_half_precision_is_filtered_in_single_precision() -> None:
    x = noise(2, 3, 16, 16).to(torch.bfloat16)
    exact = FLCPool2d()(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(FLCPool2d()(x), exact.to(torch.bfloat16), rtol=0, atol=0)
        assert_close(FLCPool2d()(x.float()), exact, rtol=0, atol=0)


def test_compiled_without_a_break_and_exported() -> None:
    x = noise(2, 3, 8, 8).float()
    layer = torch.nn.Sequential(FLCPool2d(), FLCPool2d(window="hamming"))
    expected = layer(x)  # a first pass makes the matrices
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert_close(compiled(x), expected)
    fresh = torch.nn.Sequential(FLCPool2d(), FLCPool2d(window="hamming"))
    program = torch.export.export(fresh, (x,))
    assert_close(program.module()(x), expected)
    assert not any("fft" in str(node.target) for node in program.graph.nodes)
    assert_close(fresh(x), expected)  # nothing of the export is left in it


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's scripts for forward mode, when first loaded
def test_row_by_row_under_vmap_and_along_a_tangent() -> None:
    x, v = noise(3, 2, 8, 6), noise(3, 2, 8, 6, seed=1)
    for layer in (FLCPool2d(), FLCPool2d(window="hamming"), BlurPool2d(4)):
        assert_close(torch.func.vmap(lambda row, layer=layer: layer(row[None])[0])(x), layer(x))
        assert_close(torch.func.jvp(layer, (x,), (v,))[1], layer(v))


def test_made_in_inference_mode_it_still_trains() -> None:
    layer = FLCPool2d()
    with torch.inference_mode():
        layer(torch.ones(1, 1, 10, 22))
    x = torch.ones(1, 1, 10, 22, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None


def test_nothing_to_learn_or_save_and_said_in_repr() -> None:
    layer = FLCPool2d(pad="reflect")
    layer(torch.ones(1, 1, 4, 4))
    assert not list(layer.parameters())
    assert not layer.state_dict()
    assert repr(layer) == "FLCPool2d(stride=(2, 2), pad='reflect')"


def test_validation() -> None:
    values = {"nyquist": NYQUIST, "pad": PADS, "window": WINDOWS, "impl": IMPLEMENTATIONS, "legacy": LEGACY}
    for name, allowed in values.items():
        with pytest.raises(ValueError, match=f"FLCPool2d: {name} must be one of .*{allowed[-1]}.*; got 'other'"):
            FLCPool2d(**{name: "other"})
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        FLCPool2d(0)
    with pytest.raises(ValueError, match="impl='fft' is for pad, window and legacy None"):
        FLCPool2d(impl="fft", pad="reflect")
