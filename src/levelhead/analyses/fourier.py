"""Which spatial frequencies the maps of a network hold, by depth: convolutions raise the high ones, attention lowers
them."""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.analyses.blocks import Block, blocks, watched

SMALLEST = 4  # pixels a side: below, the diagonal holds the mean and nothing else


class Profile(NamedTuple):
    """The Fourier profile of one block.

    frequencies  from 0 to just below 1, in units of pi radians a pixel, along the diagonal.
    amplitude    log amplitude at each, less the one at 0. White noise has +0.35 at all others: the mean is a real
                 number, and its logarithm is lower on average.
    rows         maps behind it.
    """

    block: Block
    frequencies: tuple[float, ...]
    amplitude: tuple[float, ...]
    rows: int

    def at(self, frequency: float) -> float:
        """The amplitude at a frequency, linear between the known ones; the last one beyond them."""
        known, values = self.frequencies, self.amplitude
        above = next((i for i, f in enumerate(known) if f >= frequency), None)
        if above is None or above == 0:
            return values[-1 if above is None else 0]
        share = (frequency - known[above - 1]) / (known[above] - known[above - 1])
        return values[above - 1] + share * (values[above] - values[above - 1])


def delta_log_amplitude(z: Float[Tensor, "rows channel h w"], *, eps: float = 1e-6) -> Float[Tensor, "rows frequency"]:
    """log(|F| + eps) along the diagonal from the mean to the highest frequency, less its first entry, by row.

    F = the Fourier transform over height and width, the logarithm is averaged over channels. min(h, w) // 2 entries, in
    equal steps of both axes' own frequencies; the last lies two pixels' worth below pi. Natural logarithm. The same for
    a z, for circular shifts, and for channels in another order, up to `eps`. Park & Kim (arXiv 2202.06709).
    """
    height, width = z.shape[-2:]
    count = min(height, width) // 2
    steps = torch.arange(count, device=z.device)
    amplitude = torch.fft.fft2(z.float() if z.dtype.itemsize < 4 else z).abs()
    diagonal = amplitude[..., steps * (height // 2) // count, steps * (width // 2) // count]
    found = reduce((diagonal + eps).log(), "rows channel frequency -> rows frequency", "mean")
    return found - found[:, :1]


def fourier_profile(
    module: nn.Module, x: Float[Tensor, "batch channel h w"], *, batch_size: int = 100, eps: float = 1e-6
) -> tuple[Profile, ...]:
    """The profile of every block of a network, or of all networks of a predictor together, by depth.

    Means over the rows of x (and over members and draws). Blocks whose maps have fewer than 4 pixels a side are left
    out. The published profiles are of images of 224 pixels; compare networks on the same images only. Raises
    CannotCompose where there is no map to read.
    """
    chosen = blocks(module, x)
    sums: dict[Block, tuple[Tensor, int]] = {}

    def see(block: Block, z: Tensor) -> None:
        if min(z.shape[-2:]) >= SMALLEST:
            new = delta_log_amplitude(z, eps=eps).double().sum(0).cpu()
            old, rows = sums.get(block, (torch.zeros_like(new), 0))
            sums[block] = (old + new, rows + len(z))

    with watched(module, chosen, see):
        for some in x.split(batch_size):
            module(some)
    return tuple(_profile(block, *sums[block]) for block in chosen if block in sums)


def change_by_kind(profiles: Iterable[Profile], *, frequency: float = 1.0) -> dict[str, float]:
    """The mean change of the amplitude at a frequency across the blocks of each kind, from the block before.

    Blocks that change the size of the map are left out: subsampling by itself moves the highest frequency.
    """
    changes: dict[str, list[float]] = {}
    for before, after in pairwise(profiles):
        if len(before.frequencies) == len(after.frequencies):
            changes.setdefault(after.block.kind, []).append(after.at(frequency) - before.at(frequency))
    return {kind: sum(found) / len(found) for kind, found in changes.items()}


def _profile(block: Block, total: Tensor, rows: int) -> Profile:
    count = len(total)
    return Profile(block, tuple(k / count for k in range(count)), tuple((total / rows).tolist()), rows)
