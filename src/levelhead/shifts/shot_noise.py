"""Shot noise: the counts of a sensor that sees few photons."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group, uniforms

LEVELS = 256


@dataclass(frozen=True)
class ShotNoise(Corruption[float]):
    """Poisson(c x) / c, independent over values: mean x, variance x / c. Hendrycks and Dietterich, arXiv 1903.12261.

    Images (batch, channel, height, width) in [0, 1]; values between the 256 levels are rounded first.
    Deviation: what a level of 256 turns into is drawn from a table, in which each probability is right to 2^-24.
    """

    group: ClassVar[Group] = "noise"

    small: tuple[float, ...] = (500.0, 250.0, 100.0, 75.0, 50.0)
    large: tuple[float, ...] = (60.0, 25.0, 12.0, 5.0, 3.0)

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """One uniform draw a value: its first 8 bits name a slot, the others keep it or take its alias."""
        keep, alias = (table.to(x.device) for table in slots(level))
        drawn = uniforms(x, x[0].numel(), generator).reshape(x.shape).float().mul_(LEVELS)
        slot = drawn.floor()
        place = torch.add(slot, x.mul(255).round_(), alpha=LEVELS).int().flatten()
        kept = drawn.sub_(slot) < keep.index_select(0, place).reshape(x.shape)
        return torch.where(kept, slot, alias.index_select(0, place).reshape(x.shape)).to(x.dtype).div_(LEVELS - 1)


@functools.lru_cache
def slots(rate: float) -> tuple[Float[Tensor, " slot"], Float[Tensor, " slot"]]:
    """Walker's alias table of each level, one after the other: how much of a slot is its own, and whose the rest is."""
    left = shown(rate) * LEVELS
    keep, alias = torch.ones_like(left), torch.arange(LEVELS).repeat(LEVELS, 1)
    row, done = torch.arange(LEVELS), torch.zeros_like(left, dtype=torch.bool)
    for _ in range(LEVELS):  # in each row, the emptiest slot is filled up from the fullest
        low = left.masked_fill(done, torch.inf).argmin(1)
        high = left.masked_fill(done, -torch.inf).argmax(1)
        keep[row, low], alias[row, low], done[row, low] = left[row, low], high, True
        left[row, high] -= (1 - keep[row, low]) * (low != high)
    return keep.float().flatten(), alias.float().flatten()


def shown(rate: float) -> Float[Tensor, "level shown"]:
    """The probability, in float64, that a level turns into each level."""
    counts = torch.arange(int(rate + 20 * rate**0.5) + 60, dtype=torch.float64)
    mean = torch.arange(LEVELS, dtype=torch.float64)[:, None] * (rate / (LEVELS - 1))
    chance = torch.exp(torch.xlogy(counts, mean) - mean - torch.lgamma(counts + 1))
    seen = (counts / rate * (LEVELS - 1) + 1e-9).clamp_max(LEVELS - 1).long()
    levels = torch.zeros(LEVELS, LEVELS, dtype=torch.float64).index_add_(1, seen, chance)
    return levels / levels.sum(1, keepdim=True)
