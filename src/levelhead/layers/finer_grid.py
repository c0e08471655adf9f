"""A map on a finer grid, interpolated by a low-pass filter: where non-linear layers can act without folding back."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from levelhead.layers.kaiser import kernel


def finer(
    x: Float[Tensor, "batch channel h w"],
    taps: tuple[float, ...],
    *,
    factor: int,
    level: bool = False,
    crop: int | None = None,
) -> Float[Tensor, "batch channel g v"]:
    """factor^2 (h * z), z = x with factor - 1 zeros behind every pixel and beyond the map: (factor h, factor w).

    Computed without z, by one transposed depthwise convolution.

    level  scale the taps that meet a pixel at each offset so that constants stay exactly constant inside; as designed,
           a constant comes out with a ripple of some per cent (3 taps) to 10^-6 (7 taps, twice).
    crop   fine pixels left out at the edges, counted from where the filter first touches the map: len(taps) // 2 (None)
           for the map's own size.
    """
    line = levelled(taps, factor) if level else tuple(factor * tap for tap in taps)
    crop = len(taps) // 2 if crop is None else crop
    return F.conv_transpose2d(
        x, kernel(line, line, x), stride=factor, padding=crop, output_padding=factor - 1, groups=x.shape[1]
    )


def in_own_precision(
    act: Callable[[Tensor], Tensor], x: Float[Tensor, "batch channel h w"]
) -> Float[Tensor, "batch channel g v"]:
    """act(x) in the precision of x, whatever autocast says; on CPU 16 bits are widened for it and come back.

    torch's transposed convolution takes 25 times as long in bfloat16 there.
    """
    widened = x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16)
    with torch.autocast(x.device.type, enabled=False):
        return act(x.float()).to(x.dtype) if widened else act(x)


def levelled(taps: tuple[float, ...], factor: int) -> tuple[float, ...]:
    """The taps times numbers, one an offset modulo `factor`, so that those of every offset sum to one."""
    sums = [sum(taps[offset::factor]) for offset in range(factor)]
    return tuple(tap / sums[k % factor] for k, tap in enumerate(taps))
