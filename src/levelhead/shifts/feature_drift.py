"""Drift: every feature moves by an offset of its own, so that rows leave the region that training covered."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._tabular import TableShift, moment, numbers, spread


@dataclass(frozen=True)
class FeatureDrift(TableShift):
    """x + c scale s with a sign s_j = +1 or -1 of each feature, the same in every row: sensors out of calibration.

    At c = 2 and more a Gaussian feature has a gap between the training rows and these. `scale` as in FeatureNoise;
    `seed` draws the signs. x (batch, feature) in the features' own units; features that never vary stay as they are.
    Not of a paper, with our constants. Draws nothing from the generator.
    """

    levels: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    scale: tuple[float, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None and min(self.scale, default=0.0) < 0:
            raise ValueError(f"FeatureDrift: scale wants standard deviations of at least 0, got {self.scale}")

    def measured(self, x: Float[Tensor, "example feature"]) -> Self:
        """See `TableShift`."""
        return self if self.scale is not None else replace(self, scale=numbers(spread(x)))

    def moved(
        self, x: Float[Tensor, "batch feature"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch feature"]:
        """The moved rows. Raises ValueError where `scale` does not match the features."""
        signs = torch.randint(2, (x.shape[-1],), generator=torch.Generator().manual_seed(self.seed)) * 2 - 1
        return x + level * moment(self, "scale", self.scale, spread(x)) * signs.to(x.device)
