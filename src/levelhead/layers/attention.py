"""Self-attention over tokens, taken apart into modules, so that surgeries find its linear layers and hooks its parts.

Measured on CPU, one thread, 64 images of 256 tokens with 3 heads of 16 features, forward: written out 59 ms, torch's
fused kernel 13; of 16 tokens in a window, written out 3, fused 6. The fused kernels have no second derivative, which
spectra of the Hessian need, so training passes are always written out.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

FUSED_FROM = 128  # tokens from which the fused kernel is faster


class Attend(nn.Module):
    """softmax(q k^T / sqrt(d) + R) v: of every query a mean of the values, weighted by how well the keys fit."""

    def forward(
        self,
        q: Float[Tensor, "*batch head query feature"],
        k: Float[Tensor, "*batch head key feature"],
        v: Float[Tensor, "*batch head key feature"],
        bias: Float[Tensor, "... query key"] | None = None,
    ) -> Float[Tensor, "*batch head query feature"]:
        """One mixture of values a query; R = bias, -inf where a key is out of reach."""
        if not torch.is_grad_enabled() and k.shape[-2] >= FUSED_FROM:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        weights = (scores if bias is None else scores + bias).softmax(-1)
        return weights.to(v.dtype) @ v


class SplitHeads(nn.Module):
    """(batch, token, 3 heads d) to queries, keys and values (batch, head, token, d)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Float[Tensor, "batch token triple"]) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, each a view."""
        q, k, v = rearrange(x, "b n (three head d) -> three b head n d", three=3, head=self.heads)
        return q, k, v

    def extra_repr(self) -> str:
        """The number of heads."""
        return f"heads={self.heads}"


class MergeHeads(nn.Module):
    """(batch, head, token, d) to (batch, token, heads d)."""

    def forward(self, x: Float[Tensor, "batch head token d"]) -> Float[Tensor, "batch token feature"]:
        """The heads beside one another."""
        return rearrange(x, "b head n d -> b n (head d)")


class Neighbourhood(nn.Module):
    """A bias that lets a token of a grid see the k x k tokens around it, and no others.

    0 where the key is at most k // 2 rows and columns before and (k - 1) // 2 behind the query, -inf elsewhere. At the
    border there are fewer keys. Park & Kim (arXiv 2202.06709) test the locality of attention so; there, zeros beyond
    the border take part in the softmax.
    """

    bias: Float[Tensor, "query key"]

    def __init__(self, grid: tuple[int, int], size: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"Neighbourhood: size wants at least 1 token a side, got {size}")
        self.size = size
        row, column = (place.flatten() for place in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
        near = [(-(size // 2) <= key - key[:, None]) & (key - key[:, None] <= (size - 1) // 2) for key in (row, column)]
        bias = torch.zeros(len(row), len(row)).masked_fill(~(near[0] & near[1]), -torch.inf)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, q: Float[Tensor, "batch head query feature"]) -> Float[Tensor, "query key"]:
        """The bias in the type of the queries."""
        return self.bias.to(q.dtype)

    def extra_repr(self) -> str:
        """The side of a neighbourhood."""
        return f"size={self.size}"


class SelfAttention(nn.Module):
    """out(attend(qkv(x))): linear layers around `Attend`, d = dim / heads features a head.

    dim        of the tokens, a multiple of heads.
    qkv_bias   a bias in the layer that makes queries, keys and values.
    within     a module from queries to a bias, such as `Neighbourhood`; None for attention to all tokens.
    """

    def __init__(self, dim: int, *, heads: int, qkv_bias: bool = True, within: nn.Module | None = None) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"SelfAttention: {dim} features cannot be shared by {heads} heads")
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.split = SplitHeads(heads)
        self.within = within
        self.attend = Attend()
        self.merge = MergeHeads()
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """What each token gathers from those it sees."""
        q, k, v = self.split(self.qkv(x))
        bias = None if self.within is None else self.within(q)
        return self.out(self.merge(self.attend(q, k, v, bias)))
