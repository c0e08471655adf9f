"""Max-pooling on a finer grid: a dense maximum, then a low-pass filter, then the steps that drop pixels."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from levelhead.layers.downsampling import LowPass
from levelhead.layers.finer_grid import finer, in_own_precision
from levelhead.layers.kaiser import auto_taps, bank, check_taps, kernel
from levelhead.layers.margins import check_margins, extended

UP = 2  # windows of k pixels are 2 k - 1 fine ones: odd, so that their centres lie on the grid for every k


class AAMaxPool2d(LowPass):
    """Down_2s(h' * max_K(h * Up_2(x))) of a map, K = 2 k - 1, h and h' low-pass at fc = 1 / (2 K) and 1 / (4 s).

    kernel_size, stride, padding, ceil_mode  k, s, p of the pooling that it stands for, whose sizes and sampling points
             it keeps: output i is centred on pixel s i - p + (k - 1) / 2, also where that lies between two.
    taps     of h and h', odd; None goes by the smaller side of the map, of the fine map for h': 3, 5 or 7.
    margin   beyond the edge: "zero" for both filters (the authors'; the maximum itself never sees a pixel that is not
             there), or the map continued once by "reflect", "replicate" or "circular".
    level    interpolate constants exactly; see `finer_grid.finer`. The maximum picks up the ripple otherwise: a
             constant 1 becomes 1.11 with 3 taps.

    arXiv 2212.11760; the gain of the interpolation is 4, as it has to be, not the 1 of the authors' code.
    """

    def __init__(
        self,
        kernel_size: int,
        stride: int,
        padding: int = 0,
        *,
        ceil_mode: bool = False,
        taps: int | None = None,
        margin: str = "zero",
        level: bool = False,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or stride < 1 or not 0 <= 2 * padding <= kernel_size:
            raise ValueError(
                "AAMaxPool2d: kernel_size and stride must be at least 1 and padding at most half the kernel; "
                f"got {kernel_size}, {stride}, {padding}"
            )
        check_taps("AAMaxPool2d", taps)
        check_margins("AAMaxPool2d", margin)
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode
        self.taps, self.margin, self.level = taps, margin, level
        self.dense = UP * (kernel_size - 1) + 1
        # a window of one pixel is no maximum, and interpolation alone wants the band of the map
        self.before, self.behind = bank(min(1 / (2 * self.dense), 1 / 4), taps), bank(1 / (4 * stride), taps)

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch channel g v"]:
        """As large as what the pooling returns."""
        return in_own_precision(self.pooled, x)

    def pooled(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch channel g v"]:
        """Up, the maximum and down again."""
        size = min(x.shape[2:])
        before = self.before[self.taps or auto_taps(size)]
        behind = self.behind[self.taps or auto_taps(UP * size)]
        rows, columns = (self.span(n, len(behind) // 2) for n in x.shape[2:])
        if self.margin == "zero":
            z = self.over_the_map(x, before, rows, columns)
        else:
            z = self.beyond_the_map(x, before, rows, columns)
        return F.conv2d(z, kernel(behind, behind, x), stride=UP * self.stride, groups=x.shape[1])

    def over_the_map(
        self, x: Float[Tensor, "batch channel h w"], taps: tuple[float, ...], rows: range, columns: range
    ) -> Float[Tensor, "batch channel row column"]:
        """The dense maximum at the fine points that the second filter reads; zeros beyond the map."""
        z = F.max_pool2d(finer(x, taps, factor=UP, level=self.level), self.dense, 1, self.dense // 2)
        h, w = z.shape[2:]
        return F.pad(z, (-columns.start, columns.stop - w, -rows.start, rows.stop - h))  # or fewer, where negative

    def beyond_the_map(
        self, x: Float[Tensor, "batch channel h w"], taps: tuple[float, ...], rows: range, columns: range
    ) -> Float[Tensor, "batch channel row column"]:
        """The same of the map as it is continued."""
        half, around = len(taps) // 2, self.dense // 2
        top, bottom = self.outside(rows, x.shape[2], half + around)
        left, right = self.outside(columns, x.shape[3], half + around)
        wider = extended(x, (left, right, top, bottom), self.margin)
        fine = finer(wider, taps, factor=UP, level=self.level, crop=0)
        first = (rows.start - around + half + UP * top, columns.start - around + half + UP * left)
        size = (len(rows) + 2 * around, len(columns) + 2 * around)
        here = fine[:, :, first[0] : first[0] + size[0], first[1] : first[1] + size[1]]
        return F.max_pool2d(here, self.dense, 1)

    def span(self, size: int, half: int) -> range:
        """The fine points along an axis of `size` pixels that the second filter reads, `half` around each centre."""
        first = self.kernel_size - 1 - UP * self.padding
        return range(first - half, first + UP * self.stride * (self.num_outputs(size) - 1) + half + 1)

    def outside(self, points: range, size: int, reach: int) -> tuple[int, int]:
        """How many pixels before the first and behind the last one matter to fine points, `reach` fine ones away."""
        before = (reach - points.start) // UP
        behind = (points.stop - 1 + reach) // UP - (size - 1)
        return max(before, 0), max(behind, 0)

    def num_outputs(self, size: int) -> int:
        """As torch counts them: with ceil_mode, no window begins in the padding behind the map."""
        over = size + 2 * self.padding - self.kernel_size
        found = (-(-over // self.stride) if self.ceil_mode else over // self.stride) + 1
        return found - 1 if self.ceil_mode and (found - 1) * self.stride >= size + self.padding else found

    def extra_repr(self) -> str:
        """The numbers that make it."""
        return (
            f"{self.kernel_size}, stride={self.stride}, padding={self.padding}, taps={self.taps or 'auto'}, "
            f"{self.margin!r}"
        )
