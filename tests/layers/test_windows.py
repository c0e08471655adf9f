"""Windows of maps: cutting, joining, who sees whom, and relative positions, against loops over pixels."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from levelhead.layers.attention import Attend
from levelhead.layers.windows import CutHeads, JoinHeads, RelativeBias, WindowAttention, Windows, offsets


@pytest.mark.parametrize(
    "height, width, size, shift", [(8, 8, 4, 0), (8, 12, 4, 2), (5, 7, 4, 0), (6, 9, 4, 2), (3, 3, 7, 0)]
)
def test_joining_undoes_cutting(height: int, width: int, size: int, shift: int) -> None:
    windows = Windows(size, shift)
    x = torch.randn(2, height, width, 3 * 6)
    parts = CutHeads(windows, 2)(x)
    joined = [JoinHeads(windows)(part, height, width) for part in parts]
    assert_close(torch.cat(joined, -1), x, rtol=0, atol=0)
    assert parts[0].shape[-2] == size**2


def test_windows_are_squares_of_neighbours() -> None:
    x = torch.arange(64.0).reshape(1, 8, 8, 1).repeat(1, 1, 1, 3)
    q, *_ = CutHeads(Windows(4), 1)(x)
    assert_close(q[0, 1, 0, :, 0], x[0, :4, 4:, 0].flatten())
    rolled, *_ = CutHeads(Windows(4, 2), 1)(x)
    assert_close(rolled[0, 0, 0, :, 0], x[0, 2:6, 2:6, 0].flatten())


@pytest.mark.parametrize("height, width, size, shift", [(8, 8, 4, 2), (5, 6, 4, 0), (6, 5, 4, 2), (5, 5, 4, 1)])
def test_real_queries_see_real_keys_that_were_neighbours(height: int, width: int, size: int, shift: int) -> None:
    windows = Windows(size, shift)
    sees = windows.sees(height, width, torch.device("cpu"))
    assert sees is not None
    tall, wide = windows.padded(height, width)
    rows, columns = torch.meshgrid(torch.arange(tall), torch.arange(wide), indexing="ij")
    place = windows.by_window(windows.ready((rows * wide + columns)[None, ..., None].float())[0, ..., 0])
    for w, i, j in itertools.product(range(sees.shape[0]), range(size**2), range(size**2)):
        (yi, xi), (yj, xj) = (divmod(int(place[w, k]), wide) for k in (i, j))
        if yi >= height or xi >= width:
            continue
        close = abs(yi - yj) < size and abs(xi - xj) < size  # a roll brings opposite borders into one window
        assert bool(sees[w, i, j]) == (yj < height and xj < width and close)


def test_whole_windows_need_no_mask() -> None:
    assert Windows(4).sees(8, 12, torch.device("cpu")) is None


def test_relative_positions_depend_on_the_offset_alone_and_use_the_whole_table() -> None:
    index = offsets(3)
    seen: dict[tuple[int, int], set[int]] = {}
    for i, j in itertools.product(range(9), range(9)):
        offset = (i // 3 - j // 3, i % 3 - j % 3)
        seen.setdefault(offset, set()).add(int(index[i, j]))
    assert all(len(found) == 1 for found in seen.values())
    assert sorted(set().union(*seen.values())) == list(range(25))


def test_the_table_is_added_to_the_scores() -> None:
    bias = RelativeBias(Windows(2), heads=3)
    got = bias(torch.zeros(1, 1, 3, 4, 5), 4, 4)
    assert got.shape == (3, 4, 4)
    for head, i, j in itertools.product(range(3), range(4), range(4)):
        dy, dx = i // 2 - j // 2 + 1, i % 2 - j % 2 + 1
        assert got[head, i, j] == bias.table[head, 3 * dy + dx]


def slowly(x: torch.Tensor, table: torch.Tensor, *, heads: int, size: int) -> torch.Tensor:
    """Attention inside windows, pixel by pixel, padding left out."""
    height, width, inner = x.shape[1], x.shape[2], x.shape[3] // 3
    q, k, v = (part.unflatten(-1, (heads, -1)) for part in x.split(inner, -1))
    out = torch.zeros(x.shape[0], height, width, heads, inner // heads, dtype=x.dtype)
    for y, z, h in itertools.product(range(height), range(width), range(heads)):
        y0, z0 = y // size * size, z // size * size
        keys = list(itertools.product(range(y0, min(y0 + size, height)), range(z0, min(z0 + size, width))))
        scores = [
            (q[:, y, z, h] * k[:, a, b, h]).sum(-1) / (inner // heads) ** 0.5
            + table[0, (y - a + size - 1) * (2 * size - 1) + z - b + size - 1]
            for a, b in keys
        ]
        weights = torch.stack(scores, -1).softmax(-1)
        values = torch.stack([v[:, a, b, h] for a, b in keys], -2)
        out[:, y, z, h] = torch.einsum("bk,bkd->bd", weights, values)
    return out.flatten(-2)


@pytest.mark.parametrize("height, width", [(4, 4), (5, 3)])
def test_attention_against_loops(height: int, width: int) -> None:
    torch.manual_seed(0)
    attention = WindowAttention(Windows(2), heads=2, per_head_bias=False).double()
    x = torch.randn(2, height, width, 3 * 6, dtype=torch.float64)
    assert_close(attention(x), slowly(x, attention.bias.table, heads=2, size=2))


@pytest.mark.parametrize("shift", [0, 2])
def test_padding_takes_no_part_and_breaks_no_gradient(shift: int) -> None:
    torch.manual_seed(0)
    attention = WindowAttention(Windows(4, shift), heads=1, per_head_bias=True)
    x = torch.randn(1, 5, 5, 9)
    x[..., 6:] = 1.0  # every value is 1, and so is every mean of values
    x.requires_grad_(True)
    out = attention(x)
    assert_close(out, torch.ones_like(out))
    out.square().sum().backward()
    assert x.grad.isfinite().all()
    assert attention.bias.table.grad.isfinite().all()


@pytest.mark.parametrize("tokens", [5, 130])
def test_fused_and_written_out_attention_agree(tokens: int) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, tokens, 8)
    bias = torch.randn(tokens, tokens).masked_fill(torch.rand(tokens, tokens) < 0.3, -torch.inf)
    bias.fill_diagonal_(0)
    attend = Attend()
    with torch.no_grad():
        fast = attend(q, k, v, bias)
    assert_close(attend(q, k, v, bias), fast, rtol=1e-4, atol=1e-5)
    weights = (q @ k.mT / 8**0.5 + bias).softmax(-1)
    assert_close(weights.sum(-1), torch.ones(2, 2, tokens))
    assert_close(fast, weights @ v, rtol=1e-4, atol=1e-5)


def test_attention_has_a_second_derivative() -> None:
    q, k, v = torch.randn(3, 1, 1, 130, 4, dtype=torch.float64).unbind()
    q.requires_grad_(True)
    (first,) = torch.autograd.grad(Attend()(q, k, v).square().sum(), q, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), q)
    assert second.abs().max() > 0
