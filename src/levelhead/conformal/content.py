"""Uniform numbers that belong to rows: the same row gets the same number, in any batch, on any machine."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

MULTIPLIERS = -7046029254386353131, -4658895280553007687  # odd, from splitmix64
BITS = 53  # of a float64's mantissa


def row_uniforms(x: Float[Tensor, "batch *input"], seed: int = 0) -> Float[Tensor, " batch"]:
    """Numbers in [0, 1), uniform over different rows: a hash of each row's float32 bits and the seed.

    A randomised set that was drawn by place in the batch would be the same draw for every batch of one row.
    """
    bits = rearrange((x.float() + 0.0).contiguous(), "b ... -> b (...)").view(torch.int32).long()
    generator = torch.Generator().manual_seed(seed)
    odd = torch.randint(-(2**62), 2**62, (bits.shape[1],), generator=generator).to(x.device) * 2 + 1
    mixed = (bits * odd).sum(-1) + seed  # wraps modulo 2^64, in any order of summation
    for multiplier in MULTIPLIERS:
        mixed = _folded(mixed) * multiplier
    mixed = _folded(mixed)
    return ((mixed >> (64 - BITS)) & (2**BITS - 1)).double() / 2**BITS


def _folded(mixed: Tensor) -> Tensor:
    return mixed ^ ((mixed >> 31) & (2**33 - 1))  # a shift that brings zeros: int64 shifts repeat the sign
