"""A low-pass filter of windowed sincs for each axis of a map: what has to stand before pixels are dropped."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.layers.kaiser import auto_taps, bank, check_taps, kernel
from levelhead.layers.margins import check_margins, extended, fits


class KaiserFilter(nn.Module):
    """y = (h_y h_x) * x of a map (batch, channel, height, width), every `stride`-th pixel; each h sums to one.

    cutoff   cycles a pixel, in (0, 1/2], of rows and of columns; 1/2 filters nothing. Before steps of S: 1 / (2 S).
    taps     of each filter, odd; None goes by the smaller side of the map, 3, 5 or 7 (`kaiser.auto_taps`). Fewer where
             the map is too small to be continued so far.
    padding  beyond the edge: "zero" (the authors'; darkens borders), "reflect", "replicate" or "circular".

    No parameters, no buffers: the taps are those of `layers.kaiser.kaiser_taps`. arXiv 2212.11760.
    """

    def __init__(
        self,
        cutoff: tuple[float, float],
        *,
        taps: int | None = None,
        padding: str = "zero",
        stride: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        check_taps("KaiserFilter", taps)
        check_margins("KaiserFilter", padding)
        self.cutoff, self.taps, self.padding, self.step = cutoff, taps, padding, stride
        self.filters = tuple(bank(fc, taps) for fc in cutoff)

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch channel g v"]:
        """Filtered, of the same size or ceil(size / stride)."""
        num = self.taps or auto_taps(min(x.shape[2:]))
        while not fits(self.padding, min(x.shape[2:]), num // 2):
            num -= 2
        rows, columns = (filters[num] for filters in self.filters)
        if len(rows) == len(columns) == 1:
            return x[:, :, :: self.step[0], :: self.step[1]]
        h, w = len(rows) // 2, len(columns) // 2
        filters = kernel(rows, columns, x)
        if self.padding == "zero":
            return F.conv2d(x, filters, stride=self.step, padding=(h, w), groups=x.shape[1])
        return F.conv2d(extended(x, (w, w, h, h), self.padding), filters, stride=self.step, groups=x.shape[1])

    def extra_repr(self) -> str:
        """The numbers that make it."""
        cutoff = tuple(round(fc, 4) for fc in self.cutoff)
        return f"cutoff={cutoff}, taps={self.taps or 'auto'}, {self.padding!r}, stride={self.step}"
