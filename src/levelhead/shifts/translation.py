"""Translation: the image rolls sideways, and what leaves on the right enters on the left."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import check_range, check_severity
from levelhead.types import Reference

PUBLISHED_WIDTH = 28


@dataclass(frozen=True)
class Translation:
    """x(row, column - round(severity * width / 28)), columns cyclic: `severity` pixels of a 28 pixel wide image.

    Images (batch, channel, height, width) in [0, 1]. The translated MNIST of Ovadia et al. (arXiv 1906.02530): 2 to 26
    pixels in steps of 2; wider and narrower images move by the same share of their width. Because the image is cyclic,
    14 is the furthest, and 26 is 2 the other way. An image so narrow that an amount rounds to nothing moves by a pixel.
    Draws nothing.
    """

    kind: ClassVar[Literal["image", "tabular"]] = "image"
    group: ClassVar[str] = "geometric"
    severities: ClassVar[tuple[int, ...]] = tuple(range(2, 27, 2))
    reference: ClassVar[Reference] = Reference(
        "Ovadia et al.",
        2019,
        arxiv="1906.02530",
        title="Can You Trust Your Model's Uncertainty? Evaluating Predictive Uncertainty Under Dataset Shift",
    )

    def __call__(
        self, x: Float[Tensor, "batch channel height width"], severity: int, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The rolled images; 0 returns them as they are. Raises ValueError for another amount."""
        check_severity(self, severity)
        check_range(self, x)
        if severity == 0:
            return x
        width = x.shape[-1]
        return x.roll(max(1, round(severity * width / PUBLISHED_WIDTH)), dims=-1)
