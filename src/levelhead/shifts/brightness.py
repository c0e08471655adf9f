"""More light: the value of every pixel's colour is raised."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group


@dataclass(frozen=True)
class Brightness(Corruption[float]):
    """HSV value v = max over channels becomes min(v + c, 1), at the same hue and saturation. arXiv 1903.12261.

    Images (batch, channel, height, width) in [0, 1]. Colours scale with their value when hue and saturation stay, so
    x v' / v equals the original's way through HSV and back; black becomes the grey v'. One channel is its own value, as
    in the original's grey images of three equal channels. Deviation: none but those of every corruption.
    """

    group: ClassVar[Group] = "weather"

    small: tuple[float, ...] = (0.05, 0.10, 0.15, 0.20, 0.30)
    large: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5)

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: float, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """x v' / v."""
        value = x.amax(1, keepdim=True)
        raised = (value + level).clamp_max(1.0)
        # x v' / v; where v = 0, x is 0 too and the second term adds v'
        black = value.clone().eq_(0)  # in float: comparing into bool is slower
        return torch.addcmul(raised * black, x, raised / (value + black))
