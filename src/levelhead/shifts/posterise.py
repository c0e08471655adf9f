"""Posterise: few levels a channel are left, and smooth surfaces break into steps."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import SEVERITIES, check_range, check_severity, truncated


@dataclass(frozen=True)
class Posterise:
    """The highest b of the 8 bits of every value, the others zero; b falls with the severity.

    Images (batch, channel, height, width) in [0, 1]; values between two 8-bit levels are cut down first. Equals
    Pillow's `ImageOps.posterize`. Not of a paper, with our constants. Draws nothing.
    """

    kind: ClassVar[Literal["image", "tabular"]] = "image"
    group: ClassVar[str] = "colour"
    severities: ClassVar[tuple[int, ...]] = SEVERITIES

    bits: tuple[int, ...] = (5, 4, 3, 2, 1)

    def __post_init__(self) -> None:
        if len(self.bits) != len(self.severities) or not all(1 <= bits <= 8 for bits in self.bits):
            raise ValueError(f"Posterise: bits wants {len(self.severities)} numbers from 1 to 8, got {self.bits}")

    def __call__(
        self, x: Float[Tensor, "batch channel height width"], severity: int, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The images with fewer levels; 0 returns them as they are."""
        check_severity(self, severity)
        check_range(self, x)
        if severity == 0:
            return x
        step = 2 ** (8 - self.bits[severity - 1])
        return truncated(x).mul_(255).round_().div_(step).floor_().mul_(step / 255)
