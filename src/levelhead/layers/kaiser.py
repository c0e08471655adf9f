"""Low-pass filters by design, not by tuning: windowed sinc taps whose cutoff follows from what comes after them."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.layers.taps import line

FEWEST, MOST = 3, 7


def kaiser_taps(cutoff: float, num: int) -> tuple[float, ...]:
    """The taps h_k ~ sinc(2 fc k) w_k / sum, k = -(n - 1) / 2, ..., (n - 1) / 2, w a Kaiser window for the band around
    fc that is left between 0 and 1/2.

    cutoff  fc in cycles a sample, in (0, 1/2]. 1/2 lets everything pass: the single tap 1, whatever `num` is.
    num     n, odd.

    The window's attenuation is 7.95 + 2.285 pi (n - 1) 2 (1 - 2 fc) dB, its beta Kaiser's function of that.
    Raises ValueError for other cutoffs and numbers. arXiv 2212.11760.
    """
    if not 0 < cutoff <= 0.5:
        raise ValueError(f"kaiser_taps: cutoff must be in (0, 1/2] cycles a sample, got {cutoff}")
    if num < 1 or num % 2 == 0:
        raise ValueError(f"kaiser_taps: num must be odd and positive, got {num}")
    if cutoff == 0.5 or num == 1:
        return (1.0,)
    half = num // 2
    k = torch.arange(-half, half + 1, dtype=torch.float64)
    width = 2 * (0.5 - cutoff) / 0.5  # of the transition, as a share of the band
    beta = kaiser_beta(7.95 + 2.285 * (num - 1) * math.pi * width)
    window = torch.special.i0(beta * (1 - (k / half) ** 2).clamp_min(0).sqrt())
    taps = torch.sinc(2 * cutoff * k) * window
    return tuple((taps / taps.sum()).tolist())


def kaiser_beta(attenuation: float) -> float:
    """The window's shape for an attenuation in dB beyond its band (Kaiser, 1974)."""
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    over = max(attenuation - 21, 0.0)
    return float(0.5842 * over**0.4 + 0.07886 * over)


def auto_taps(size: int) -> int:
    """How many taps suit a map of `size` pixels: 3 up to 14, 5 up to 22, 7 from 23 on."""
    return min(max(2 * ((size + 1) // 8) + 1, FEWEST), MOST)


def bank(cutoff: float, taps: int | None) -> dict[int, tuple[float, ...]]:
    """The filters of a layer by their number of taps: those of the number wanted (None: of the most), and all shorter
    ones. They are designed once, so that a compiler of the layer meets plain numbers."""
    return {num: kaiser_taps(cutoff, num) for num in range(1, (taps or MOST) + 1, 2)}


def check_taps(owner: str, taps: int | None) -> None:
    """ValueError for a number of taps that no filter here has."""
    if taps is not None and (taps < FEWEST or taps % 2 == 0):
        raise ValueError(
            f"{owner}: taps must be odd and at least {FEWEST}, or None to go by the map's size; got {taps}"
        )


def kernel(
    rows: tuple[float, ...], columns: tuple[float, ...], like: Float[Tensor, "batch channel h w"], *, gain: float = 1.0
) -> Float[Tensor, "channel 1 row column"]:
    """outer(rows, columns) * gain for every channel of `like`, in its dtype; the sum survives 16 bits."""
    wide = torch.promote_types(like.dtype, torch.float32)
    taps = [line(f, wide, like.device) for f in (rows, columns)]
    exact = torch.outer(*taps) * gain
    found = exact.to(like.dtype)
    if found.dtype != wide:  # rounding moves the sum by a thousandth; the centre takes that back
        centre = tuple(n // 2 for n in found.shape)
        found[centre] += (exact.sum() - found.to(wide).sum()).to(like.dtype)
    # with channels innermost: depthwise convolutions go by the strides of the kernel
    return rearrange(found, "row column -> 1 row column 1").repeat(like.shape[1], 1, 1, 1).movedim(-1, 1)
