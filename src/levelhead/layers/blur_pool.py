"""BlurPool: a binomial filter before the step over pixels, so that what the coarser map cannot hold is mostly gone.

As in `flc_pool` the filter, its padding and the step are one small matrix an axis, up to DENSE pixels a side; larger
maps go through a depthwise convolution. Processor time of forward and backward, one thread, channels-last, milliseconds
by matrices / by padding and convolution: (64, 64, 56, 56) 52 / 64, (64, 64, 32, 32) 9 / 18, (32, 32, 80, 80) 22 / 25,
(32, 64, 112, 112) 173 / 159.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from levelhead.layers.axis_products import Arrays, ByMatrices, between
from levelhead.layers.downsampling import Pair, pair, steps_of
from levelhead.layers.taps import line

MOST_TAPS = 7
PADDINGS = {"reflect": "reflect", "replicate": "replicate", "zero": "constant", "circular": "circular"}
DENSE = 96


def binomial(taps: int) -> tuple[float, ...]:
    """A row of Pascal's triangle, divided by its sum: [1], [1, 1] / 2, [1, 2, 1] / 4, [1, 3, 3, 1] / 8, ..."""
    return tuple(math.comb(taps - 1, i) / 2 ** (taps - 1) for i in range(taps))


class BlurPool2d(ByMatrices):
    """y[i, j] = sum_ab f[a] f[b] x[s i + a - p, s j + b - p], p = floor((taps - 1) / 2); no parameters.

    ceil(H / stride) rows come out. The filter is positive and sums to 1: values stay within those of x.

    taps      of the binomial filter f, 1 (plain striding) to 7. Even filters look half a pixel to the right; 2 at
              stride 2 is average pooling.
    stride    of both axes, or one each.
    margin    ceil((H + margin) / stride) rows come out: for the sizes of the layer whose place this takes.
    padding   "reflect", "replicate", "zero" or "circular".
    fallback  maps too small for the padding are filtered with fewer taps; False: they are refused.

    Half-precision maps are filtered in single precision. Zhang, arXiv 1904.11486.
    """

    def __init__(
        self,
        taps: int = 4,
        *,
        stride: int | Pair = 2,
        margin: int | Pair = 0,
        padding: str = "reflect",
        fallback: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= taps <= MOST_TAPS:
            raise ValueError(f"BlurPool2d: taps must be from 1 to {MOST_TAPS}, got {taps}")
        if padding not in PADDINGS:
            raise ValueError(f"BlurPool2d: padding must be one of {', '.join(map(repr, PADDINGS))}; got {padding!r}")
        self.taps, self.stride, self.margin = taps, pair(stride), pair(margin)
        if min(self.stride) < 1:
            raise ValueError(f"BlurPool2d: stride must be at least 1, got {stride}")
        self.padding, self.fallback = padding, fallback

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch channel g v"]:
        """The coarser map, in the dtype and layout of x."""
        with torch.autocast(x.device.type, enabled=False):
            z = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            if max(x.shape[2:]) > DENSE:
                return self._convolved(z).to(x.dtype)
            by = self.made(z)
            return between(z, by.rows, by.columns).to(x.dtype)

    def products(self, sizes: Pair) -> Arrays:
        """The matrices of a map of this size."""
        rows, columns = (self._matrix(axis, sizes[axis]) for axis in (0, 1))
        return Arrays(rows, columns)

    def _matrix(self, axis: int, size: int) -> Any:
        taps, before, after = self._reach(axis, size)
        padded = np.pad(np.eye(size), ((before, max(after, 0)), (0, 0)), mode=_NUMPY[self.padding])  # type: ignore[call-overload]
        count = (before + size + after - taps) // self.stride[axis] + 1
        starts = self.stride[axis] * np.arange(count)
        return sum(f * padded[starts + a] for a, f in enumerate(binomial(taps)))

    def _reach(self, axis: int, size: int) -> tuple[int, int, int]:
        """Taps, and pixels before and after (fewer than none: cut off), for a map of this size."""
        stride, margin = self.stride[axis], self.margin[axis]
        (count,) = steps_of((size,), (margin,), (stride,))
        limit = {"reflect": size - 1, "circular": size}.get(self.padding, self.taps + stride)
        for taps in range(self.taps, 0, -1):
            before = (taps - 1) // 2
            after = (count - 1) * stride + taps - size - before
            if max(before, after) <= limit and count >= 1:
                return taps, before, after
            if not self.fallback:
                break
        raise ValueError(
            f"BlurPool2d: a map of {size} pixels is too small for {self.taps} taps with {self.padding!r} padding at "
            f"stride {stride}; use fewer taps, or fallback=True"
        )

    def _convolved(self, x: Tensor) -> Tensor:
        """The same by a depthwise convolution."""
        (down, top, bottom), (right, left, end) = (self._reach(axis, x.shape[2 + axis]) for axis in (0, 1))
        margins = (left, max(end, 0), top, max(bottom, 0))
        padded = F.pad(x, margins, mode=PADDINGS[self.padding])
        padded = padded[:, :, : top + x.shape[2] + bottom, : left + x.shape[3] + end]
        kernel = torch.outer(*(line(binomial(taps), x.dtype, x.device) for taps in (down, right)))
        kernels = repeat(kernel, "a b -> channel 1 a b", channel=x.shape[1])
        return F.conv2d(padded, kernels, stride=self.stride, groups=x.shape[1])

    def extra_repr(self) -> str:
        """What it was made with, defaults left out."""
        told = {"margin": (0, 0), "padding": "reflect", "fallback": True}
        words = [f"{name}={getattr(self, name)!r}" for name, usual in told.items() if getattr(self, name) != usual]
        return ", ".join([f"taps={self.taps}", f"stride={self.stride}", *words])


_NUMPY = {"reflect": "reflect", "replicate": "edge", "zero": "constant", "circular": "wrap"}
