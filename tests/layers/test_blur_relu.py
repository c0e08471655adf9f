"""Blur-ReLU against the same steps taken one by one, its constants, its borders and how it moves with its map."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from levelhead.layers.blur_relu import BlurReLU
from levelhead.layers.kaiser import kaiser_taps
from levelhead.layers.margins import MARGINS
from levelhead.layers.quantile_relu import QuantileReLU

X = torch.randn(2, 3, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def step_by_step(x: torch.Tensor, low: int, up: int, num: int, padding: str) -> torch.Tensor:
    """Zeros between pixels, filter, ReLU, filter, every up-th pixel; every map continued where that is exact."""
    f = torch.tensor(kaiser_taps(1 / (2 * low * up), num), dtype=torch.float64)
    weights = torch.outer(f, f).expand(x.shape[1], 1, num, num)
    mode = {"zero": "constant"}.get(padding, padding)
    z = torch.zeros(*x.shape[:2], up * x.shape[2], up * x.shape[3], dtype=x.dtype)
    z[:, :, ::up, ::up] = x

    def filtered(z: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.pad(z, (num // 2,) * 4, mode=mode), weights, groups=x.shape[1])

    return filtered(F.relu(up**2 * filtered(z)))[:, :, ::up, ::up]


@pytest.mark.parametrize("padding", ["zero", "circular"])
@pytest.mark.parametrize("num", [3, 5, 7])
@pytest.mark.parametrize("low, up", [(2, 2), (1, 2), (2, 1), (1, 3), (2, 4)])
def test_it_is_its_steps(low: int, up: int, num: int, padding: str) -> None:
    layer = BlurReLU(low, up, taps=num, padding=padding)
    assert_close(layer(X), step_by_step(X, low, up, num, padding))


@pytest.mark.parametrize("padding", MARGINS)
def test_paddings_agree_inside(padding: str) -> None:
    layer, zero = BlurReLU(taps=5, padding=padding), BlurReLU(taps=5)
    assert_close(layer(X)[:, :, 3:-3, 3:-3], zero(X)[:, :, 3:-3, 3:-3])


def test_one_and_one_is_relu_to_the_bit() -> None:
    assert torch.equal(BlurReLU(1, 1)(X), F.relu(X))


@pytest.mark.parametrize("num, value", [(3, 1.0353), (5, 1.0002), (7, 1.000002)])
def test_constants(num: int, value: float) -> None:
    one = torch.ones(1, 2, 20, 20, dtype=torch.float64)
    assert BlurReLU(taps=num)(one)[0, 0, 10, 10].item() == pytest.approx(value, abs=5e-5 if num < 7 else 2e-7)
    for padding in ("reflect", "replicate", "circular"):
        level = BlurReLU(taps=num, padding=padding, level=True)
        assert_close(level(one), one, rtol=0, atol=1e-14)
        assert not level(-one).any()
    inside = BlurReLU(taps=num, level=True)(one)[:, :, 3:-3, 3:-3]
    assert_close(inside, torch.ones_like(inside), rtol=0, atol=1e-14)
    assert BlurReLU(taps=num)(one)[0, 0, 0, 0] < 0.95  # zeros darken borders


@pytest.mark.parametrize("num", [3, 5])
def test_levelled_it_stays_between_zero_and_the_largest_value(num: int) -> None:
    y = BlurReLU(taps=num, padding="replicate", level=True)(X)
    assert y.min() >= 0
    assert y.max() <= X.max()


@pytest.mark.parametrize("q", [0.0, 0.4])
def test_it_moves_with_its_map(q: float) -> None:
    layer = BlurReLU(q=q, padding="circular")
    assert_close(layer(X.roll((5, -2), dims=(2, 3))), layer(X).roll((5, -2), dims=(2, 3)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("num, largest", [(3, 0.42), (5, 0.18), (7, 0.063)])
def test_a_checkerboard_is_damped_before_it_is_rectified(num: int, largest: float) -> None:
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(16)
    board = torch.outer(signs, signs)[None, None]
    assert BlurReLU(taps=num, padding="circular")(board).abs().max() < largest
    assert F.relu(board).max() == 1


def test_aa_relu_lifts_first() -> None:
    m = torch.quantile(X.flatten(2), 0.4, dim=-1)[..., None, None]
    assert_close(BlurReLU(q=0.4)(X), BlurReLU()(X + F.relu(-m)))
    assert torch.equal(BlurReLU(1, 1, q=0.4)(X), QuantileReLU(0.4)(X))


@pytest.mark.parametrize("padding", MARGINS)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_small_maps(size: int, padding: str) -> None:
    x = torch.rand(1, 2, size, size + 1, dtype=torch.float64)
    for taps in (None, 7):
        y = BlurReLU(taps=taps, padding=padding, level=True)(x)
        assert y.shape == x.shape
        assert y.min() > 0
    if padding != "zero":
        one = torch.ones_like(x)
        assert_close(BlurReLU(taps=7, padding=padding, level=True)(one), one)


def test_taps_go_by_the_smaller_side() -> None:
    for size, num in ((14, 3), (15, 5), (23, 7)):
        x = torch.randn(1, 1, 30, size, dtype=torch.float64)
        assert torch.equal(BlurReLU()(x), BlurReLU(taps=num)(x))


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_gradients(padding: str) -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    for q in (0.0, 0.4):
        assert torch.autograd.gradcheck(BlurReLU(q=q, padding=padding), x)


def test_the_input_is_left_alone_in_every_precision() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = X.to(dtype)
        held = x.clone()
        assert BlurReLU(q=0.4)(x).dtype == dtype
        assert torch.equal(x, held)


def test_refusals() -> None:
    for options, field in (({"low": 0}, "low and up"), ({"q": 1.0}, "q"), ({"taps": 4}, "taps")):
        with pytest.raises(ValueError, match=f"BlurReLU: {field}"):
            BlurReLU(**options)
    with pytest.raises(ValueError, match="BlurReLU: padding"):
        BlurReLU(padding="same")
