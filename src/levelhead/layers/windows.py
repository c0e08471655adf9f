"""Attention inside windows of a map: cutting and joining windows, relative positions, and what may see what."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from levelhead.layers.attention import Attend


class Windows(NamedTuple):
    """Non-overlapping size x size windows; a map that they do not tile is padded below and on the right.

    shift  pixels by which the map is rolled up and left before it is cut, so that windows straddle those of shift 0.
    """

    size: int
    shift: int = 0

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The smallest sizes from these on that windows tile."""
        return math.ceil(height / self.size) * self.size, math.ceil(width / self.size) * self.size

    def ready(self, x: Float[Tensor, "batch h w channel"]) -> Float[Tensor, "batch tall wide channel"]:
        """Padded by zeros and rolled: what is cut."""
        height, width = self.padded(*x.shape[1:3])
        if (height, width) != tuple(x.shape[1:3]):
            x = F.pad(x, (0, 0, 0, width - x.shape[2], 0, height - x.shape[1]))
        return x.roll((-self.shift, -self.shift), (1, 2)) if self.shift else x

    def undone(
        self, x: Float[Tensor, "batch tall wide channel"], height: int, width: int
    ) -> Float[Tensor, "batch h w channel"]:
        """The map that was made ready, rolled back and without padding."""
        x = x.roll((self.shift, self.shift), (1, 2)) if self.shift else x
        return x[:, :height, :width]

    def sees(self, height: int, width: int, device: torch.device) -> Bool[Tensor, "window place place"] | None:
        """Which key (last axis) a query may see: no padding, and in rolled maps no pixel from the other border.

        None where all keys of all windows may be seen. What a query in the padding sees is cut off, so it sees all:
        a softmax over nothing would be NaN, and so would the gradient.
        """
        tall, wide = self.padded(height, width)
        if not self.shift and (tall, wide) == (height, width):
            return None
        real, region = [], []
        for size, padded in ((height, tall), (width, wide)):
            place = torch.arange(padded, device=device)
            real.append((place + self.shift) % padded < size)
            behind = (place >= padded - self.size).long() + (place >= padded - self.shift).long()
            region.append(behind if self.shift else torch.zeros_like(place))
        there = self.by_window(real[0][:, None] & real[1])
        where = self.by_window(3 * region[0][:, None] + region[1])
        same = where[:, :, None] == where[:, None, :]
        return (same & there[:, None, :]) | ~there[:, :, None]

    def by_window(self, x: Shaped[Tensor, "tall wide"]) -> Shaped[Tensor, "window place"]:
        """Windows row by row, their pixels row by row."""
        return rearrange(x, "(y p) (x q) -> (y x) (p q)", p=self.size, q=self.size)


def offsets(size: int) -> Int[Tensor, "place place"]:
    """For query i and key j of a window, the place of their offset in a table of (2 size - 1)^2."""
    row, column = (place.flatten() for place in torch.meshgrid(*(torch.arange(size),) * 2, indexing="ij"))
    dy, dx = (place[:, None] - place[None, :] + size - 1 for place in (row, column))
    return dy * (2 * size - 1) + dx


class RelativeBias(nn.Module):
    """R[i, j] = T[y_i - y_j + p - 1, x_i - x_j + p - 1], and -inf where i may not see j.

    table   T, (heads or 1) x (2p - 1)^2, learnt, from Normal(0, 0.02^2).
    """

    index: Int[Tensor, "place place"]

    def __init__(self, windows: Windows, *, heads: int = 1) -> None:
        super().__init__()
        self.windows = windows
        self.table = nn.Parameter(0.02 * torch.randn(heads, (2 * windows.size - 1) ** 2))
        self.register_buffer("index", offsets(windows.size), persistent=False)

    def forward(
        self, q: Float[Tensor, "batch window head place feature"], height: int, width: int
    ) -> Float[Tensor, "... head_or_one place place"]:
        """R for a map of this size, with an axis of windows in front where they differ."""
        bias = self.table[:, self.index]  # in the table's type: under autocast the softmax is of full precision
        sees = self.windows.sees(height, width, q.device)
        if sees is None:
            return bias
        return torch.where(rearrange(sees, "w i j -> w 1 i j"), bias, -torch.inf)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"heads={len(self.table)}, size={self.windows.size}, shift={self.windows.shift}"


class CutHeads(nn.Module):
    """(batch, h, w, 3 heads d) to queries, keys and values (batch, window, head, place, d)."""

    def __init__(self, windows: Windows, heads: int) -> None:
        super().__init__()
        self.windows = windows
        self.heads = heads

    def forward(self, x: Float[Tensor, "batch h w triple"]) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of every window."""
        size = self.windows.size
        q, k, v = rearrange(  # one copy, after which each of the three lies as matrix products want it
            self.windows.ready(x),
            "b (y p) (x q) (three head d) -> three b (y x) head (p q) d",
            three=3,
            head=self.heads,
            p=size,
            q=size,
        )
        return q, k, v

    def extra_repr(self) -> str:
        """Sizes."""
        return f"heads={self.heads}, size={self.windows.size}, shift={self.windows.shift}"


class JoinHeads(nn.Module):
    """(batch, window, head, place, d) to (batch, h, w, heads d)."""

    def __init__(self, windows: Windows) -> None:
        super().__init__()
        self.windows = windows

    def forward(
        self, x: Float[Tensor, "batch window head place d"], height: int, width: int
    ) -> Float[Tensor, "batch h w channel"]:
        """The map again."""
        size = self.windows.size
        rows = self.windows.padded(height, width)[0] // size
        x = rearrange(x, "b (y x) head (p q) d -> b (y p) (x q) (head d)", y=rows, p=size)
        return self.windows.undone(x, height, width)


class WindowAttention(nn.Module):
    """Attention of every pixel to those of its window, from queries, keys and values in one map to their mixtures.

    per_head_bias  a table of relative positions a head; else one that all heads share.
    """

    def __init__(self, windows: Windows, *, heads: int, per_head_bias: bool) -> None:
        super().__init__()
        self.cut = CutHeads(windows, heads)
        self.bias = RelativeBias(windows, heads=heads if per_head_bias else 1)
        self.attend = Attend()
        self.join = JoinHeads(windows)

    def forward(self, qkv: Float[Tensor, "batch h w triple"]) -> Float[Tensor, "batch h w inner"]:
        """Channels last on both sides."""
        height, width = qkv.shape[1], qkv.shape[2]
        q, k, v = self.cut(qkv)
        return self.join(self.attend(q, k, v, self.bias(q, height, width)), height, width)
