"""What attacks of a given radius share: where they may go, and how they come to face a predictor."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.attacks._ball import Ball, Norm
from levelhead.attacks._victim import Victim, facing
from levelhead.predictor import Predictor
from levelhead.types import Targets


class WithinBall(ABC):
    """An `Attack` around the search that its `on` is, with fields eps, norm and bounds.

    by_gradient  whether it needs a gradient in x.
    """

    by_gradient: ClassVar[bool] = True
    eps: float
    norm: Norm
    bounds: tuple[float, float]

    @property
    def ball(self) -> Ball:
        """Where x' may be."""
        return Ball(self.eps, self.norm, self.bounds)

    def __call__(
        self, predictor: Predictor, x: Float[Tensor, "batch *input"], y: Targets, generator: torch.Generator
    ) -> Float[Tensor, "batch *input"]:
        """See `Attack`. All draws are from `generator`."""
        with facing(predictor, x, y, generator, by_gradient=self.by_gradient) as victim:
            return self.on(victim)

    @abstractmethod
    def on(self, victim: Victim) -> Float[Tensor, "batch *input"]:
        """See `Attack`."""
