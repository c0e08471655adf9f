"""What Swin has beside plain transformer blocks: attention in windows from linear layers, and patch merging."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.layers.tokens import ChannelsFirst
from levelhead.layers.windows import WindowAttention, Windows


class WindowedLinearAttention(nn.Module):
    """out(window attention(qkv(x))), channels last; a table of relative positions for each head."""

    def __init__(self, dim: int, windows: Windows, *, heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"WindowedLinearAttention: {dim} features cannot be shared by {heads} heads")
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.windows = WindowAttention(windows, heads=heads, per_head_bias=True)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "batch h w dim"]) -> Float[Tensor, "batch h w dim"]:
        """What each pixel gathers from its window."""
        return self.out(self.windows(self.qkv(x)))


class SpaceToChannels(nn.Module):
    """(batch, c, 2h, 2w) to (batch, h, w, 4c): each 2 x 2 pixels beside one another; odd sides get a row of zeros."""

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch g v four"]:
        """Half the rows and columns, column by column of the four."""
        x = F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2)) if x.shape[-1] % 2 or x.shape[-2] % 2 else x
        return rearrange(x, "b c (h y) (w x) -> b h w (x y c)", y=2, x=2)


class PatchMerging(nn.Module):
    """Each 2 x 2 pixels of a map as one of `out` channels: LayerNorm of all four, then a linear layer without bias."""

    def __init__(self, dim: int, out: int, *, eps: float) -> None:
        super().__init__()
        self.gather = SpaceToChannels()
        self.norm = nn.LayerNorm(4 * dim, eps=eps)
        self.linear = nn.Linear(4 * dim, out, bias=False)
        self.first = ChannelsFirst()

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch out g v"]:
        """A map of half the sides, rounded up."""
        return self.first(self.linear(self.norm(self.gather(x))))
