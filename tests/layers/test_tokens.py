"""Tokens: there and back, the class token in front, pooled grids, merged patches, neighbourhoods."""

import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from levelhead.layers.attention import Neighbourhood, SelfAttention
from levelhead.layers.token_pool import TokenPool
from levelhead.layers.tokens import ClassToken, FirstToken, Positions, Residual, ToMap, ToTokens, transformer_block
from levelhead.layers.transformer import patch_grid
from levelhead.layers.window_layers import PatchMerging


def test_tokens_and_back() -> None:
    x = torch.randn(2, 5, 3, 4)
    assert torch.equal(ToMap((3, 4))(ToTokens()(x)), x)
    token = ClassToken(5)
    more = token(ToTokens()(x))
    assert torch.equal(ToMap((3, 4), prefix=1)(more), x)
    assert torch.equal(FirstToken()(more), token.token.weight.expand(2, 5))


def test_positions_are_added() -> None:
    positions = Positions(12, 5)
    assert torch.equal(positions(torch.zeros(2, 12, 5)), positions.table.weight.expand(2, 12, 5))
    assert 0.01 < positions.table.weight.std() < 0.03


def test_attention_is_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = SelfAttention(12, heads=3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    x = torch.randn(2, 7, 12)
    assert_close(ours(x), theirs(x, x, x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_neighbourhoods(size: int) -> None:
    bias = Neighbourhood((3, 5), size)(torch.zeros(1, 1, 15, 1))
    for (i, (yi, xi)), (j, (yj, xj)) in itertools.product(enumerate(itertools.product(range(3), range(5))), repeat=2):
        near = all(-(size // 2) <= d <= (size - 1) // 2 for d in (yj - yi, xj - xi))
        assert float(bias[i, j]) == (0.0 if near else -torch.inf)


def test_a_neighbourhood_of_everything_changes_nothing_and_of_one_gives_the_values() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 9, 8)
    whole = SelfAttention(8, heads=2, within=Neighbourhood((3, 3), 5))
    free = SelfAttention(8, heads=2)
    free.load_state_dict(whole.state_dict())
    assert_close(whole(x), free(x))
    alone = SelfAttention(8, heads=2, within=Neighbourhood((3, 3), 1))
    assert_close(alone(x), alone.out(alone.qkv(x)[..., 16:]))


def test_what_is_far_is_not_seen() -> None:
    torch.manual_seed(0)
    attention, x = SelfAttention(8, heads=2, within=Neighbourhood((4, 4), 3)), torch.randn(1, 16, 8)
    other = x.clone()
    other[:, 0] += 1
    moved = (attention(x) != attention(other)).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize("prefix", [0, 1])
def test_pooled_tokens(prefix: int) -> None:
    torch.manual_seed(0)
    pool, x = TokenPool(4, 8, grid=(5, 6), prefix=prefix), torch.randn(2, prefix + 30, 4)
    out = pool(x)
    assert pool.pooled == (3, 3)
    assert out.shape == (2, prefix + 9, 8)
    pixels = x[:, prefix:].mT.reshape(2, 4, 5, 6)
    assert_close(ToMap((3, 3), prefix=prefix)(out), pool.conv(pixels))
    if prefix:
        assert_close(out[:, 0], pool.linear(x[:, 0]))


def test_pools_of_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="TokenPool: out wants a multiple of 4, got 6"):
        TokenPool(4, 6, grid=(2, 2), prefix=0)


def test_merged_patches() -> None:
    torch.manual_seed(0)
    merge, x = PatchMerging(3, 5, eps=1e-5), torch.randn(2, 3, 4, 6)
    # the published order: rows vary fastest among the four
    four = torch.cat([x[:, :, y::2, z::2] for z, y in itertools.product((0, 1), (0, 1))], 1)
    assert_close(merge(x), merge.linear(merge.norm(four.movedim(1, -1))).movedim(-1, 1))
    assert merge(torch.randn(2, 3, 5, 3)).shape == (2, 5, 3, 2)


def test_a_transformer_block() -> None:
    torch.manual_seed(0)
    block = transformer_block(
        8, SelfAttention(8, heads=2), hidden=16, eps=1e-6, drop_path=0.0, grid=(2, 3), prefix=1
    ).eval()
    x = torch.randn(2, 7, 8)
    z = x + block.msa.body.inner(block.msa.body.norm(x))
    assert_close(block(x), z + block.mlp.body.inner(block.mlp.body.norm(z)))
    assert all(isinstance(part, Residual) and (part.grid, part.prefix) == ((2, 3), 1) for part in block)


def test_grids_of_patches() -> None:
    assert patch_grid("ViT", (32, 48), patch=16) == (2, 3)
    assert patch_grid("PiT", (32, 32), patch=2, stride=1) == (31, 31)
    for sides, patch in (((28, 30), 4), ((2, 2), 4)):
        with pytest.raises(ValueError, match=rf"ViT: patches of 4 x 4 pixels, .* images of {sides[0]} x {sides[1]}"):
            patch_grid("ViT", sides, patch=patch)


def test_heads_share_the_features() -> None:
    with pytest.raises(ValueError, match="8 features cannot be shared by 3 heads"):
        SelfAttention(8, heads=3)
