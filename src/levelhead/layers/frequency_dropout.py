"""Filters of random widths behind a convolution: a channel loses some of its frequencies, each time others."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.declared import Pace, Stochastic
from levelhead.layers.frequency_filters import kernels_of
from levelhead.layers.paced_filter import PacedFilter

RESAMPLE = ("epoch", "step")
TYPE_PER = ("network", "layer")
SEEDS = 2**62


class Family(NamedTuple):
    """How widths of one family are drawn: uniform from smallest to largest; 0, the identity, with probability p."""

    smallest: float
    largest: float
    p: float


class Draw(NamedTuple):
    """What is drawn, and when.

    families  by name, of `frequency_filters.FAMILIES`; one of them a draw, each with equal probability.
    resample  "epoch" or "step".
    type_per  "network": one family for the whole network a draw. "layer": each layer its own.
    log_mode  see `log_kernels`.
    anneal    (first, last) epochs, from 0, over which the share of filtered channels falls linearly to none.
    """

    families: Mapping[str, Family]
    resample: str = "epoch"
    type_per: str = "network"
    log_mode: str = "reference"
    anneal: tuple[int, int] | None = None

    def share(self, epoch: int) -> float:
        """The part of the filtered channels that is left in an epoch."""
        if self.anneal is None:
            return 1.0
        first, last = self.anneal
        return min(1.0, max(0.0, (last - epoch) / (last - first)))


class SharedSeeds:
    """One seed for each (member sample) block of a pass, drawn by the layer that comes first, read by all."""

    def __init__(self) -> None:
        self.seeds: list[int] = []


class RandomFilters(PacedFilter):
    """Each channel c through a filter of its own width sigma_c: sigma_c = 0 with probability p, else uniform.

    What is drawn is a function of a seed, the channels and `group` alone: layers of one group draw the same widths.
    """

    def __init__(self, channels: int, draw: Draw, *, group: str, size: int, padding: str, stored: bool) -> None:
        super().__init__(channels, size, padding=padding, stored=stored)
        self.draw, self.group = draw, group

    def pace(self, now: Pace) -> None:
        """New filters when the epoch, or the step, is new."""
        seed = now.epoch_seed if self.draw.resample == "epoch" else now.step_seed
        known = (seed, self.draw.share(now.epoch))
        if known != self.known:
            off = known[1] == 0 or all(family.p == 1 for family in self.draw.families.values())
            self.become(self.kernels(*known), known, idle=off)

    def kernels(self, seed: int, share: float = 1.0) -> Float[Tensor, "channel 1 tap tap"]:
        """The filters that belong to a seed, on the CPU."""
        own = torch.Generator().manual_seed(mixed(seed, self.group))
        names = tuple(self.draw.families)
        common = own if self.draw.type_per == "layer" else torch.Generator().manual_seed(seed)
        name = names[int(torch.randint(len(names), (), generator=common))]
        sigma = drawn_widths(self.channels, self.draw.families[name], own, share=share)
        return kernels_of(name, sigma, self.size, log_mode=self.draw.log_mode)

    def extra_repr(self) -> str:
        """Sizes, and what is drawn."""
        return f"{self.channels}, {'/'.join(self.draw.families)} each {self.draw.resample}, group={self.group!r}"


class FrequencyFilters(RandomFilters):
    """Random filters in training. stored: prediction uses the last ones; else none."""

    def predicted(self, x: Float[Tensor, "rows channel h w"]) -> Float[Tensor, "rows channel h w"]:
        """See `PacedFilter.predicted`."""
        return self.filtered(x, self.kernel) if self.stored else x


class SampledFrequencyFilters(RandomFilters, Stochastic):
    """Random filters in training, and new ones for each sample at prediction; the identity where none is asked for.

    shared  what all layers of a network hold; the one that `leads` draws the seeds of a pass from torch's stream.
    """

    def __init__(
        self, channels: int, draw: Draw, *, group: str, size: int, padding: str, shared: SharedSeeds, leads: bool
    ) -> None:
        super().__init__(channels, draw, group=group, size=size, padding=padding, stored=False)
        self.shared, self.leads = shared, leads

    def predicted(self, x: Float[Tensor, "rows channel h w"]) -> Float[Tensor, "rows channel h w"]:
        """Filters of its own for every (member sample) block."""
        if not self.drawing:
            return x
        blocks = self.blocks_in(len(x))
        if self.leads or len(self.shared.seeds) != blocks:
            self.shared.seeds = torch.randint(SEEDS, (blocks,)).tolist()
        pieces = x.unflatten(0, (blocks, -1)).unbind(0)
        kernels = (self.kernels(seed).to(x.dtype).to(x.device, non_blocking=True) for seed in self.shared.seeds)
        return torch.cat([self.filtered(z, kernel) for z, kernel in zip(pieces, kernels, strict=True)])


def drawn_widths(
    channels: int, family: Family, generator: torch.Generator, *, share: float = 1.0
) -> Float[Tensor, " channel"]:
    """sigma_c ~ U(smallest, largest), and 0 with probability 1 - share (1 - p)."""
    u = torch.rand(2, channels, generator=generator, dtype=torch.float64)
    sigma = family.smallest + (family.largest - family.smallest) * u[0]
    return torch.where(u[1] < share * (1 - family.p), sigma, 0.0)


def mixed(seed: int, place: str) -> int:
    """A seed that belongs to a seed and a place."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {place}".encode(), digest_size=7).digest(), "big")
