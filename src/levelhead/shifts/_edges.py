"""Edges and distances of a batch of grey images, as OpenCV defines them for one: what Spatter's water needs.

Images are (batch, height, width), their values whole levels of 0 to 255 held as float32, so that sums are exact.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

Images = Float[Tensor, "batch height width"]
Mask = Bool[Tensor, "batch height width"]
TAN = 13573 / 2**15  # tan 22.5 degrees in OpenCV's 15 bits


def canny(x: Images, low: float, high: float) -> Mask:
    """Canny's edges: |dx| + |dy| of 3 x 3 Sobel filters, thinned across the edge, linked from `high` down to `low`."""
    # images innermost, so that what lies beside each other in the pictures does so in long runs
    field = rearrange(framed(x, "replicate"), "b h w -> h w b").contiguous()
    down = field[:-2] + field[2:] + 2 * field[1:-1]
    dx = down[:, 2:] - down[:, :-2]
    across = field[:, :-2] + field[:, 2:] + 2 * field[:, 1:-1]
    dy = across[2:] - across[:-2]
    wide, tall = dx.abs(), dy.abs()
    size = wide + tall
    near = F.pad(size, (0, 0, 1, 1, 1, 1))  # outside the image there is no gradient
    height, width = x.shape[1:]

    def beside(row: int, column: int) -> Images:
        return near[1 + row : 1 + row + height, 1 + column : 1 + column + width]

    # masks are 0 and 1 in float32, where torch compares and combines several times faster than in bool
    flat = torch.lt(tall, wide * TAN, out=torch.empty_like(size))
    steep = torch.gt(tall, wide * (2 + TAN), out=torch.empty_like(size))
    falling = (dx * dy).gt_(0)
    # a ridge is kept once: strictly above the neighbour before it, at least level with the one behind it; sizes are
    # whole numbers, so strictly above is at least 1 above. On a slant, strictly above both
    along = torch.maximum(beside(0, -1) + 1, beside(0, 1)) * flat
    along += torch.maximum(beside(-1, 0) + 1, beside(1, 0)) * steep
    fall, rise = torch.maximum(beside(-1, -1), beside(1, 1)), torch.maximum(beside(-1, 1), beside(1, -1))
    along += torch.lerp(rise, fall, falling).add_(1) * (1 - flat - steep)
    kept = rearrange(size >= along.clamp_min_(low + 1), "h w b -> b h w").contiguous()
    return linked(kept & rearrange(size > high, "h w b -> b h w"), kept)


def linked(strong: Mask, weak: Mask) -> Mask:
    """The strong pixels, and the weak ones that a chain of weak neighbours, corners included, ties to a strong one."""
    while True:
        edges = F.pad(strong, (1, 1, 1, 1))
        edges = edges[:, :-2] | edges[:, 1:-1] | edges[:, 2:]
        edges = (edges[..., :-2] | edges[..., 1:-1] | edges[..., 2:]) & weak
        if torch.equal(edges, strong):
            return strong
        strong = edges


def distance(edges: Mask, most: int) -> Images:
    """The Euclidean distance of each pixel to the nearest edge pixel, at most `most`; `most` where there is none."""
    # images innermost, as in `canny`; whole numbers in bytes, the fastest there are
    near = rearrange(edges, "b h w -> h w b").to(torch.uint8)
    height, width, _ = near.shape
    away = torch.zeros_like(near)
    for _ in range(min(most, height)):  # along columns first: what is out of reach of one step more is one farther
        away += 1 - near
        wider = near.clone()
        wider[1:] |= near[:-1]
        wider[:-1] |= near[1:]
        near = wider
    along = away.float().masked_fill_(near == 0, float(most)).square_()
    out = along.clone()
    for step in range(1, min(most, width)):
        if step**2 >= float(out.amax()):
            break
        far = along + step**2
        torch.minimum(out[:, step:], far[:, :-step], out=out[:, step:])
        torch.minimum(out[:, :-step], far[:, step:], out=out[:, :-step])
    return rearrange(out.sqrt_(), "h w b -> b h w").contiguous()


def box(x: Images) -> Images:
    """Sums over 3 x 3 pixels; the border is mirrored without repeating the edge pixel."""
    field = framed(x, "reflect")
    field = field[:, :-2] + field[:, 1:-1] + field[:, 2:]
    return field[..., :-2] + field[..., 1:-1] + field[..., 2:]


def emboss(x: Images) -> Images:
    """Correlation with [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], clipped to 8 bits; borders as in `box`."""
    field = framed(x, "reflect")
    inner = field[:, 1:-1, 1:-1]
    out = inner + 2 * (field[:, 2:, 2:] - field[:, :-2, :-2])
    out += field[:, 2:, 1:-1] - field[:, :-2, 1:-1]
    out += field[:, 1:-1, 2:] - field[:, 1:-1, :-2]
    return out.clamp_(0, 255)


def equalised(x: Images, most: int) -> Images:
    """Levels of 0 to `most` spread over 0 to 255 so that their distribution in each image becomes even.

    The lowest level goes to 0, level v to 255 (pixels from there up to v) / (all but the lowest's), rounded; an image
    of one level stays as it is.
    """
    flat = rearrange(x, "b h w -> b (h w)").long()
    counts = x.new_zeros(len(x), most + 1).scatter_add_(1, flat, torch.ones_like(x).flatten(1))
    first = (counts > 0).double().argmax(1, keepdim=True)
    lowest, total = counts.gather(1, first), flat.shape[1]
    scale = 255 / (total - lowest).clamp_min(1)
    table = ((counts.cumsum(1) - lowest) * scale).round().clamp(0, 255)
    table = torch.where(lowest == total, first.to(x.dtype), table)
    return table.gather(1, flat).reshape(x.shape)


def framed(x: Images, mode: str) -> Float[Tensor, "batch tall wide"]:
    """One more pixel on each side."""
    return F.pad(x, (1, 1, 1, 1), mode=mode)
