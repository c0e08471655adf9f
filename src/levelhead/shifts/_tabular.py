"""What the shifts of tables share: they speak in terms of the features' own moments, those of the training rows."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import SEVERITIES, check_severity


class TableShift(ABC):
    """A shift of rows of features whose constants are in units of each feature's mean and spread."""

    kind: ClassVar[Literal["image", "tabular"]] = "tabular"
    group: ClassVar[str] = "tabular"
    severities: ClassVar[tuple[int, ...]] = SEVERITIES

    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.severities):
            wanted = len(self.severities)
            raise ValueError(f"{type(self).__name__}: levels wants {wanted} constants, got {self.levels}")

    def __call__(
        self, x: Float[Tensor, "batch feature"], severity: int, generator: torch.Generator
    ) -> Float[Tensor, "batch feature"]:
        """The shifted rows; 0 returns them as they are."""
        check_severity(self, severity)
        return x if severity == 0 else self.moved(x, self.levels[severity - 1], generator)

    @abstractmethod
    def measured(self, x: Float[Tensor, "example feature"]) -> Self:
        """The same shift with the moments of these (training) rows, where it was given none."""

    @abstractmethod
    def moved(
        self, x: Float[Tensor, "batch feature"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch feature"]:
        """The rows, shifted by one of the levels."""


def moment(shift: TableShift, name: str, given: tuple[float, ...] | None, own: Tensor) -> Float[Tensor, " feature"]:
    """A moment of each feature: as given, else as the rows have it. Raises ValueError for another number of them."""
    if given is not None and len(given) != len(own):
        raise ValueError(f"{type(shift).__name__}: {name} has {len(given)} numbers, x has {len(own)} features")
    return own if given is None else own.new_tensor(given)


def spread(x: Float[Tensor, "example feature"]) -> Float[Tensor, " feature"]:
    """The standard deviation of each feature; 0 for one that never varies."""
    return x.std(0, correction=0)


def numbers(values: Float[Tensor, " feature"]) -> tuple[float, ...]:
    """As plain numbers."""
    return tuple(values.double().tolist())
