"""Local self-attention on maps, as AlterNet has it, and where it stands in a stage."""

from jaxtyping import Float
from torch import Tensor, nn

from levelhead.layers.tokens import ChannelsFirst, ChannelsLast
from levelhead.layers.windows import WindowAttention, Windows


class LocalAttention2d(nn.Module):
    """Multi-head self-attention inside non-overlapping windows of a map, without a shift.

    q, k, v = 1x1 convolutions of x, without bias;  A = softmax(q k^T / sqrt(d) + R) in each window and head;
    output = 1x1 convolution, with bias, of A v.  R[i, j] = T[offset of i and j], T of (2 window - 1)^2 numbers.

    channels, out  of the input and output maps.
    heads, d       d = dim_head features a head, whatever the channels are.
    window         pixels a side. A map that windows do not tile is padded, and the padding masked, never cropped.
    per_head_bias  a table T for each head; the authors have one for all.

    Park & Kim, arXiv 2202.06709.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        *,
        heads: int,
        dim_head: int = 64,
        window: int = 7,
        per_head_bias: bool = False,
    ) -> None:
        super().__init__()
        for name, number in {"heads": heads, "dim_head": dim_head, "window": window}.items():
            if number < 1:
                raise ValueError(f"LocalAttention2d: {name} must be at least 1, got {number}")
        inner = heads * dim_head
        self.qkv = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.last = ChannelsLast()
        self.windows = WindowAttention(Windows(window), heads=heads, per_head_bias=per_head_bias)
        self.first = ChannelsFirst()
        self.out = nn.Conv2d(inner, out, 1)

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch out h w"]:
        """What each pixel gathers from its window."""
        return self.out(self.first(self.windows(self.last(self.qkv(x)))))


def tail_pattern(blocks: int, msa: int) -> tuple[bool, ...]:
    """Which blocks of a stage are attention: [conv] * (blocks - 2 msa) + [conv, attention] * msa.

    Raises ValueError for 2 msa > blocks: the stage's first block stays a convolution, and no two MSAs are neighbours.
    """
    if msa < 0 or 2 * msa > blocks:
        raise ValueError(f"a stage of {blocks} blocks holds 0 to {blocks // 2} MSA blocks, got {msa}")
    return (False,) * (blocks - 2 * msa) + (False, True) * msa


def window_for(height: int, width: int) -> int:
    """7 where windows of 7 tile the map, else 4 where those do, else 7 or the whole of a smaller map.

    7 for the maps of 224 pixels behind an ImageNet stem, 4 for those of 32 pixels.
    """
    for size in (7, 4):
        if height % size == 0 and width % size == 0:
            return size
    return min(7, max(height, width))


def checked_heads(spec: str, heads: tuple[int, ...], dim_head: int | None, window: int | None) -> None:
    """ValueError in the name of `spec` for sizes of attention that make no sense."""
    if not heads or min(heads) < 1:
        raise ValueError(f"{spec}: heads wants one positive number a stage, such as (3, 6, 12, 24); got {heads}")
    for name, number in {"dim_head": dim_head, "window": window}.items():
        if number is not None and number < 1:
            raise ValueError(f"{spec}: {name} must be at least 1, got {number}")


def head_size(width: int, heads: int) -> int:
    """Features a head, so that all heads together have three times the block's width: AlterNet's 64."""
    return max(1, 3 * width // heads)
