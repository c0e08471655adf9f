"""FrequencyLowCut pooling: keep the frequencies that the smaller map can hold, and no others. Nothing can alias.

Cropping a spectrum is linear along each axis, hence two small complex matrices, A along the height and B along the
width: y = Re(A x B^T) = Re A x Re B^T - Im A x Im B^T. Padding, windows and the crop back are in the matrices too. The
second term is zero where the number of kept frequencies is odd, and of rank one where it is even and there is no
window: a row more in each matrix.

Processor time of forward and backward on one CPU thread, in milliseconds, for the crop's literal form (fft2, shift,
crop, shift, ifft2, real) / a real FFT / matrices: maps (64, 64, 56, 56) 1100 / 280 / 72, (64, 64, 32, 32) 200 / 70 /
13, (32, 64, 112, 112) - / 860 / 185, (16, 16, 160, 160) - / 131 / 38. Matrices are "auto" up to DENSE pixels a side.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.layers.axis_products import Arrays, ByMatrices, between, rippled
from levelhead.layers.downsampling import Pair, pair, steps_of

NYQUIST = ("average", "zero", "keep")
PADS = (None, "reflect", "one", "double")
WINDOWS = (None, "hamming")
IMPLEMENTATIONS = ("auto", "matrix", "fft")
LEGACY = (None, "abs", "gain4")
DENSE = 512
CACHED = 256
TINY = 1e-12


class Axis(NamedTuple):
    """What happens along one axis: how many samples come in and go out, and how they are made."""

    size: int
    kept: int
    stride: int
    nyquist: str
    pad: str | None
    window: str | None


class FLCPool2d(ByMatrices):
    """The low frequencies of a map, on a grid `stride` times coarser: real(ifft2(crop(fft2(x)))), no parameters.

    ceil(H / stride) rows come out; the mean stays, and pixel 0 of the output is centred on pixel 0 of the input. The
    map is taken to be periodic. Output may be negative where the input is not (Gibbs ringing).

    stride    of both axes, or one each; the paper's 2.
    margin    ceil((H + margin) / stride) rows come out: for the sizes of the layer whose place this takes.
    nyquist   the frequency that the coarse grid just holds, of an even number of rows: "average" of its two signs, half
              a cosine and no sine (the authors', and what fft2 gives); "zero" drops it; "keep" the whole cosine.
    pad       None; "reflect" the map at its borders before, and cut the borders off after; "one" row and column of
              zeros; "double" zeros around the map to twice its size, cut off after (the last two of arXiv 2307.09804).
    window    "hamming": the spectrum times the root of a Hamming window (0.54 - 0.46 cos), as wide as the spectrum:
              less ringing (arXiv 2307.09804). For even sizes it is not 1 at the mean: 0.954 at 8, 0.998 at 32.
    impl      "matrix", "fft" (needs pad, window and legacy None), or "auto".
    legacy    operations of old weights: "gain4" times four, before February 2023; "abs" four times the modulus,
              before October 2022. On sizes whose half is odd the authors' crop was off by one frequency; this is not.

    Half-precision maps are filtered in single precision. Grabinski et al., arXiv 2204.00491.
    """

    def __init__(
        self,
        stride: int | Pair = 2,
        *,
        margin: int | Pair = 0,
        nyquist: str = "average",
        pad: str | None = None,
        window: str | None = None,
        impl: str = "auto",
        legacy: str | None = None,
    ) -> None:
        super().__init__()
        allowed = {
            "nyquist": (nyquist, NYQUIST),
            "pad": (pad, PADS),
            "window": (window, WINDOWS),
            "impl": (impl, IMPLEMENTATIONS),
            "legacy": (legacy, LEGACY),
        }
        for name, (value, values) in allowed.items():
            if value not in values:
                raise ValueError(f"FLCPool2d: {name} must be one of {', '.join(map(repr, values))}; got {value!r}")
        self.stride, self.margin = pair(stride), pair(margin)
        if min(self.stride) < 1:
            raise ValueError(f"FLCPool2d: stride must be at least 1, got {stride}")
        if impl == "fft" and (pad or window or legacy):
            raise ValueError("FLCPool2d: impl='fft' is for pad, window and legacy None; use impl='matrix'")
        self.nyquist, self.pad, self.window, self.impl, self.legacy = nyquist, pad, window, impl, legacy

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch channel g v"]:
        """The coarser map, in the dtype and layout of x."""
        with torch.autocast(x.device.type, enabled=False):
            z = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            return self._pooled(z).to(x.dtype)

    def _pooled(self, x: Tensor) -> Tensor:
        height, width = self.axes((x.shape[2], x.shape[3]))
        if self._by_fft(height, width):
            return cropped(x, (height.kept, width.kept), self.nyquist)
        by = self.made(x)
        if by.ripple is not None:
            return self._gained(rippled(x, by.rows, by.columns, by.ripple))
        y = between(x, by.rows, by.columns)
        if by.rest is not None:
            y = y - between(x, *by.rest)
            if self.legacy == "abs":
                y = torch.complex(y, between(x, by.rows, by.rest[1]) + between(x, by.rest[0], by.columns)).abs()
        return self._gained(y)

    def products(self, sizes: Pair) -> Arrays:
        """The matrices of a map of this size."""
        a, b = (operator(axis) for axis in self.axes(sizes))
        if self.legacy != "abs" and min(np.abs(a.imag).max(), np.abs(b.imag).max()) < TINY:
            return Arrays(a.real, b.real)
        rank = max(np.linalg.matrix_rank(matrix.imag, TINY) for matrix in (a, b))
        if self.legacy == "abs" or rank > 1:
            return Arrays(a.real, b.real, rest=(a.imag, b.imag))
        (up, right), (left, down) = _factors(a.imag), _factors(b.imag)
        return Arrays(np.vstack((a.real, right)), np.vstack((b.real, down)), ripple=-np.outer(up, left))

    def _gained(self, y: Tensor) -> Tensor:
        """Old versions did not normalise their transforms."""
        return y if self.legacy is None else 4 * y

    def axes(self, sizes: Pair) -> tuple[Axis, Axis]:
        """What happens along the height and the width of a map of this size."""
        kept = steps_of(sizes, self.margin, self.stride)
        if min(kept) < 1 or any(k > size for k, size in zip(kept, sizes, strict=True)):
            raise ValueError(
                f"FLCPool2d: a map of {sizes} pixels cannot be cropped to {kept}; lower stride {self.stride} or choose "
                f"another margin than {self.margin}"
            )
        down, right = (
            Axis(size, k, stride, self.nyquist, self.pad, self.window)
            for size, k, stride in zip(sizes, kept, self.stride, strict=True)
        )
        return down, right

    def _by_fft(self, height: Axis, width: Axis) -> bool:
        if self.pad or self.window or self.legacy or height.kept == height.size or width.kept == width.size:
            return False
        return self.impl == "fft" or (self.impl == "auto" and max(height.size, width.size) > DENSE)

    def extra_repr(self) -> str:
        """What it was made with, defaults left out."""
        told = {"margin": (0, 0), "nyquist": "average", "pad": None, "window": None, "impl": "auto", "legacy": None}
        words = [f"{name}={getattr(self, name)!r}" for name, usual in told.items() if getattr(self, name) != usual]
        return ", ".join([f"stride={self.stride}", *words])


def cropped(x: Float[Tensor, "batch channel h w"], kept: Pair, nyquist: str) -> Float[Tensor, "batch channel g v"]:
    """The same by a real FFT; fewer samples come out than go in, on both axes."""
    (g, v), half = kept, kept[0] // 2
    spectrum = torch.fft.rfft2(x, norm="forward")[..., : v // 2 + 1]
    weight = {"average": 0.5, "zero": 0.0, "keep": 1.0}[nyquist]
    parts = [spectrum[..., : half + g % 2, :], spectrum[..., x.shape[2] - half :, :]]
    if g % 2 == 0:
        above, below = spectrum[..., half : half + 1, :], parts[1][..., :1, :]
        both = weight * (above + below)
        if v % 2 == 0 and nyquist == "average":  # highest on both axes: these two of the four signs, as ifft2 has it
            both = torch.cat((both[..., :-1], above[..., -1:]), -1)
        parts = [parts[0], both, parts[1][..., 1:, :]]
    z = torch.cat(parts, -2)
    if v % 2 == 0 and nyquist != "average":
        z = torch.cat((z[..., :-1], z[..., -1:] * (2 * weight)), -1)
    return torch.fft.irfft2(z, s=kept, norm="forward")


def _factors(matrix: Any) -> tuple[Any, Any]:
    """A column and a row whose product is a matrix of rank one."""
    u, s, v = np.linalg.svd(matrix)
    return u[:, 0] * s[0], v[0]


@lru_cache(maxsize=CACHED)
def operator(axis: Axis) -> Any:
    """Pad, transform, weigh, crop, transform back and cut off, along one axis: a complex (g, h) array."""
    before, after = _pads(axis)
    length = axis.size + before + after
    aligned = axis.pad in ("reflect", "double") and before + after > 0
    kept = length // axis.stride if aligned else axis.kept
    k = np.arange(-(kept // 2), kept - kept // 2)
    weight = np.ones(kept)
    if axis.window == "hamming" and length > 1:
        weight = np.sqrt(np.hamming(length))[k + length // 2]
    if kept % 2 == 0 and kept < length and axis.nyquist == "zero":
        weight[0] = 0
    if kept % 2 == 0 and kept < length and axis.nyquist == "keep":
        k, weight = np.append(k, -k[0]), np.append(weight, weight[0])
    first = before // axis.stride if aligned else 0
    out, into = np.arange(first, first + axis.kept), np.arange(length)
    synthesis = np.exp(2j * np.pi / kept * np.outer(out, k)) * weight
    analysis = np.exp(-2j * np.pi / length * np.outer(k, into)) / length
    return synthesis @ analysis @ _padding(axis, before, length)


def _pads(axis: Axis) -> Pair:
    """Pixels before and after; with "reflect" and "double" both the map's start and the whole are multiples of the
    stride, so that what is left after is on the stride's own grid."""
    if axis.pad is None or axis.pad == "one":
        return 0, int(axis.pad == "one")
    limit = axis.size - 1 if axis.pad == "reflect" else 2 * axis.size
    before = min(limit, axis.size // 2) // axis.stride * axis.stride
    for after in range(min(limit, before), limit + 1):
        length = axis.size + before + after
        if length % axis.stride == 0 and (length - before) // axis.stride >= axis.kept:
            return before, after
    return 0, 0


def _padding(axis: Axis, before: int, length: int) -> Any:
    """A 1 in each row for the pixel that stands there; rows of zeros beyond the borders."""
    place = np.arange(length) - before
    if axis.pad == "reflect":
        last = axis.size - 1
        place = np.where(place < 0, -place, np.where(place > last, 2 * last - place, place))
    return place[:, None] == np.arange(axis.size)
