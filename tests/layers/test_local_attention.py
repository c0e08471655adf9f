"""Local attention on maps: a mean in windows, what leaves them, what a window may not see, and patterns of stages."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch.testing import assert_close

from levelhead.layers.local_attention import LocalAttention2d, head_size, tail_pattern, window_for


def layer(**options: int) -> LocalAttention2d:
    torch.manual_seed(0)
    return LocalAttention2d(6, 5, heads=2, dim_head=3, **{"window": 4, **options}).double()


def image(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_without_queries_and_table_it_is_a_box_mean_of_each_window() -> None:
    attention, x = layer(), image(2, 6, 8, 8)
    with torch.no_grad():
        attention.qkv.weight[:12] = 0
        attention.windows.bias.table.zero_()
        values = F.conv2d(x, attention.qkv.weight[12:])
        means = F.avg_pool2d(values, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
        assert_close(attention(x), attention.out(means))


def test_a_window_is_no_business_of_the_others() -> None:
    attention, x = layer(), image(1, 6, 8, 8)
    other = x.clone()
    other[:, :, :4, 4:] += 1
    before, after = attention(x), attention(other)
    assert torch.equal(before[:, :, 4:], after[:, :, 4:])
    assert torch.equal(before[:, :, :4, :4], after[:, :, :4, :4])
    assert not torch.allclose(before[:, :, :4, 4:], after[:, :, :4, 4:])


def test_permuted_windows_come_out_permuted_and_whole_windows_may_roll() -> None:
    attention, x = layer(), image(1, 6, 8, 8)
    order = [2, 0, 3, 1]

    def permuted(z: torch.Tensor) -> torch.Tensor:
        windows = rearrange(z, "b c (y p) (x q) -> (y x) b c p q", p=4, q=4)[order]
        return rearrange(windows, "(y x) b c p q -> b c (y p) (x q)", y=2)

    assert_close(attention(permuted(x)), permuted(attention(x)))
    assert_close(attention(x.roll(4, 3)), attention(x).roll(4, 3))
    assert not torch.allclose(attention(x.roll(1, 3)), attention(x).roll(1, 3))


@pytest.mark.parametrize("size", [(5, 5), (3, 7), (2, 2)])
def test_maps_that_windows_do_not_tile_keep_their_size(size: tuple[int, int]) -> None:
    assert layer()(image(2, 6, *size)).shape == (2, 5, *size)


def test_a_padded_map_computes_what_its_windows_compute_alone() -> None:
    attention, x = layer(), image(1, 6, 4, 6)
    assert_close(attention(x)[..., :4], attention(x[..., :4]))
    assert_close(attention(x)[..., 4:], attention(x[..., 4:]))


def test_tables() -> None:
    assert layer(window=7).windows.bias.table.shape == (1, 169)
    heads = LocalAttention2d(6, 5, heads=2, dim_head=3, window=7, per_head_bias=True)
    assert heads.windows.bias.table.shape == (2, 169)
    assert 0.015 < heads.windows.bias.table.std() < 0.025
    assert attention_biases(heads) == (False, True)


def attention_biases(layer: LocalAttention2d) -> tuple[bool, bool]:
    return layer.qkv.bias is not None, layer.out.bias is not None


@pytest.mark.parametrize(
    "blocks, msa, pattern",
    [(6, 3, "CACACA"), (6, 1, "CCCCCA"), (4, 2, "CACA"), (2, 1, "CA"), (3, 1, "CCA"), (3, 0, "CCC"), (1, 0, "C")],
)
def test_patterns(blocks: int, msa: int, pattern: str) -> None:
    assert "".join("CA"[is_msa] for is_msa in tail_pattern(blocks, msa)) == pattern


@pytest.mark.parametrize("blocks, msa", [(3, 2), (1, 1), (4, -1)])
def test_patterns_that_there_are_not(blocks: int, msa: int) -> None:
    with pytest.raises(ValueError, match=f"a stage of {blocks} blocks holds 0 to {blocks // 2} MSA blocks, got {msa}"):
        tail_pattern(blocks, msa)


@pytest.mark.parametrize(
    "sides, windows", [((56, 28, 14, 7), (7, 7, 7, 7)), ((32, 16, 8, 4), (4, 4, 4, 4)), ((28, 14, 7, 4), (7, 7, 7, 4))]
)
def test_windows_tile_the_usual_maps(sides: tuple[int, ...], windows: tuple[int, ...]) -> None:
    assert tuple(window_for(side, side) for side in sides) == windows
    assert (window_for(6, 6), window_for(2, 3), window_for(10, 30)) == (6, 3, 7)


def test_heads_have_three_times_the_width() -> None:
    assert [head_size(64 * 2**i, 3 * 2**i) for i in range(4)] == [64] * 4
    assert head_size(2, 24) == 1


@pytest.mark.parametrize("field", ["heads", "dim_head", "window"])
def test_mistakes(field: str) -> None:
    with pytest.raises(ValueError, match=f"LocalAttention2d: {field} must be at least 1, got 0"):
        LocalAttention2d(6, 5, **{"heads": 2, "dim_head": 3, field: 0})
