"""A hard tone curve: shadows go to black, lights to white, the middle grows steep."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import SEVERITIES, check_range, check_severity


@dataclass(frozen=True)
class ContrastCurve:
    """(s(x) - s(0)) / (s(1) - s(0)) with s(x) = 1 / (1 + exp(-k (x - 1/2))): 0, 1/2 and 1 stay where they are.

    k grows with the severity; towards 0 the curve is the straight line. Images (batch, channel, height, width) in
    [0, 1]. The opposite of Contrast, as cameras and developers apply it; not of a paper, with our constants. Draws
    nothing, and does not round to 8 bits.
    """

    kind: ClassVar[Literal["image", "tabular"]] = "image"
    group: ClassVar[str] = "colour"
    severities: ClassVar[tuple[int, ...]] = SEVERITIES

    levels: tuple[float, ...] = (4.0, 6.0, 9.0, 13.0, 20.0)

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.severities) or min(self.levels) <= 0:
            raise ValueError(f"ContrastCurve: levels wants {len(self.severities)} slopes above 0, got {self.levels}")

    def __call__(
        self, x: Float[Tensor, "batch channel height width"], severity: int, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The curve applied; 0 returns the images as they are."""
        check_severity(self, severity)
        check_range(self, x)
        if severity == 0:
            return x
        k = self.levels[severity - 1]
        black = 1 / (1 + math.exp(k / 2))
        return torch.sigmoid(k * (x - 0.5)).sub_(black).div_(1 - 2 * black).clamp_(0, 1)
