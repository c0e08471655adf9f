"""Solarise: what is brighter than a threshold turns into its negative."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import SEVERITIES, check_range, check_severity


@dataclass(frozen=True)
class Solarise:
    """1 - x where x >= t, else x; the threshold t falls with the severity.

    Images (batch, channel, height, width) in [0, 1]. Equals Pillow's `ImageOps.solarize` at 255 t. Not of a paper, with
    our constants. Draws nothing.
    """

    kind: ClassVar[Literal["image", "tabular"]] = "image"
    group: ClassVar[str] = "colour"
    severities: ClassVar[tuple[int, ...]] = SEVERITIES

    levels: tuple[float, ...] = (0.9, 0.8, 0.7, 0.6, 0.5)

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.severities) or not all(0 <= level <= 1 for level in self.levels):
            raise ValueError(f"Solarise: levels wants {len(self.severities)} thresholds in [0, 1], got {self.levels}")

    def __call__(
        self, x: Float[Tensor, "batch channel height width"], severity: int, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The solarised images; 0 returns them as they are."""
        check_severity(self, severity)
        check_range(self, x)
        return x if severity == 0 else torch.where(x >= self.levels[severity - 1], 1 - x, x)
