"""Missing columns: features that were there in training are not measured, and their mean stands in."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._tabular import TableShift, moment, numbers


@dataclass(frozen=True)
class MissingColumns(TableShift):
    """x_j = mean_j for a share of the features, the same ones in every row; a severity keeps those of the lower ones.

    levels  the share that is missing, of severities 1 to 5: round(share * features), at least one.
    fill    what stands in, a number a feature; None takes the training rows' means in an evaluation, and those of the
            rows given elsewhere.
    seed    draws the order in which features go.

    x (batch, feature) in the features' own units. Mean imputation as in practice; not of a paper, with our constants.
    Draws nothing from the generator.
    """

    levels: tuple[float, ...] = (0.1, 0.2, 0.4, 0.6, 0.8)
    fill: tuple[float, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 < level <= 1 for level in self.levels):
            raise ValueError(f"MissingColumns: levels wants shares above 0, at most 1, got {self.levels}")

    def measured(self, x: Float[Tensor, "example feature"]) -> Self:
        """See `TableShift`."""
        return self if self.fill is not None else replace(self, fill=numbers(x.mean(0)))

    def moved(
        self, x: Float[Tensor, "batch feature"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch feature"]:
        """The rows without those features. Raises ValueError where `fill` does not match the features."""
        count = x.shape[-1]
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))
        gone = order[: max(1, round(level * count))].to(x.device)
        fill = moment(self, "fill", self.fill, x.mean(0))
        return x.index_copy(1, gone, fill[gone].expand(len(x), -1))
