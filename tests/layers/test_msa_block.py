"""The MSA block: its two orders against a few lines of functions, at rest, and where shapes change."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from levelhead.layers.drop_path import DropPath, linear_rates
from levelhead.layers.msa_block import MSABlock


def block(variant: str, *, channels: int = 8, out: int = 8, stride: int = 1, **options: float) -> MSABlock:
    torch.manual_seed(0)
    return MSABlock(
        channels, out, width=4, heads=3, dim_head=2, window=4, stride=stride, variant=variant, **options
    ).double()


def ready(made: MSABlock) -> tuple[MSABlock, torch.Tensor]:
    """The block with statistics other than the initial ones, and inputs for it."""
    x = torch.randn(4, made.body.conv.in_channels, 8, 8, dtype=torch.float64)
    made.train()(x)
    return made.eval(), x


def test_pre_activation() -> None:
    made, x = ready(block("B"))
    z = F.gelu(made.entry.norm(x))
    assert_close(made(x), x + made.attention(made.body.norm(made.body.conv(z))))
    kinds = [type(m).__name__ for m in made.body.children()]
    assert kinds == ["Conv2d", "BatchNorm2d", "LocalAttention2d"]  # no activation behind the second norm, no MLP


def test_pre_activation_with_a_projection() -> None:
    made, x = ready(block("B", out=16, stride=2))
    z = F.gelu(made.entry.norm(x))
    assert_close(made(x), F.conv2d(z, made.shortcut.conv.weight, stride=2) + made.body(z))
    assert [type(m) for m in made.shortcut] == [nn.Conv2d]
    assert made(x).shape == (4, 16, 4, 4)


def test_post_activation() -> None:
    made, x = ready(block("A"))
    z = F.gelu(made.body.norm(made.body.conv(x)))
    assert_close(made(x), x + made.body.norm2(made.attention(z)))
    strided, x = ready(block("A", out=16, stride=2))
    assert_close(strided(x), strided.body(x) + strided.shortcut.norm(strided.shortcut.conv(x)))


@pytest.mark.parametrize("variant", ["A", "B"])
def test_at_rest_it_is_its_shortcut(variant: str) -> None:
    for options in ({}, {"out": 16, "stride": 2}):
        made, x = ready(block(variant, **options))
        made.rest()
        z = made.entry(x)
        assert torch.equal(made(x), made.shortcut(z) if options else x)


def test_norms_by_name() -> None:
    kinds = {type(m) for m in block("A", norm="group").modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)}
    assert kinds == {nn.GroupNorm}


def test_an_unknown_order() -> None:
    with pytest.raises(ValueError, match="MSABlock: variant must be one of 'B', 'A'; got 'C'"):
        block("C")


def test_dropped_paths_keep_the_mean_and_whole_rows() -> None:
    drop, x = DropPath(0.3), torch.rand(4000, 3, 2) + 1
    torch.manual_seed(0)
    kept = drop(x)
    rows = (kept != 0).flatten(1)
    assert torch.equal(rows.all(1), rows.any(1))
    assert abs(float(rows[:, 0].double().mean()) - 0.7) < 0.03
    assert_close(kept[rows[:, 0]], x[rows[:, 0]] / 0.7)
    assert torch.equal(drop.eval()(x), x)
    assert torch.equal(DropPath(0.0)(x), x)


def test_the_mean_of_a_block_that_drops_its_path_is_the_block() -> None:
    made, x = ready(block("B", drop_path=0.5))
    made.body.drop.train()
    torch.manual_seed(0)
    mean = made(x.repeat(500, 1, 1, 1)).unflatten(0, (500, -1)).mean(0)
    assert (mean - made.eval()(x)).abs().mean() < 0.1 * (made(x) - x).abs().mean()


def test_rates_grow_linearly_over_all_blocks() -> None:
    assert linear_rates((2, 1, 2), 0.4) == [[0.0, 0.1], [0.2], [pytest.approx(0.3), 0.4]]
    assert linear_rates((1,), 0.4) == [[0.0]]


def test_a_rate_is_a_probability() -> None:
    with pytest.raises(ValueError, match=r"DropPath: p must be in \[0, 1\), got 1"):
        DropPath(1.0)
