"""Gamma: a tone curve that darkens the middle and leaves black and white."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import SEVERITIES, check_range, check_severity


@dataclass(frozen=True)
class Gamma:
    """x^g, every channel alike; g grows with the severity, and below 1 it would brighten instead.

    Images (batch, channel, height, width) in [0, 1]. The exposure and display error of photography; not of a paper,
    with our constants. Draws nothing, and does not round to 8 bits.
    """

    kind: ClassVar[Literal["image", "tabular"]] = "image"
    group: ClassVar[str] = "colour"
    severities: ClassVar[tuple[int, ...]] = SEVERITIES

    levels: tuple[float, ...] = (1.25, 1.6, 2.0, 2.5, 3.2)

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.severities) or min(self.levels) <= 0:
            raise ValueError(f"Gamma: levels wants {len(self.severities)} exponents above 0, got {self.levels}")

    def __call__(
        self, x: Float[Tensor, "batch channel height width"], severity: int, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The curve applied; 0 returns the images as they are."""
        check_severity(self, severity)
        check_range(self, x)
        return x if severity == 0 else x.pow(self.levels[severity - 1])
