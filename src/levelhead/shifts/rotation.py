"""Rotation about the centre of the image; a severity is an angle in degrees."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import check_range, check_severity
from levelhead.types import Reference


@dataclass(frozen=True)
class Rotation:
    """Turned counter-clockwise by `severity` degrees, bilinear, zeros outside; the frame keeps its size.

    Images (batch, channel, height, width) in [0, 1], of any shape and number of channels. The rotated MNIST of Ovadia
    et al. (arXiv 1906.02530) in steps of 15 degrees to 180. Deviations: they interpolate with cubic splines (which
    leave [0, 1]) on an expanded canvas and crop its centre; the frame is the same up to half a pixel. Draws nothing.
    """

    kind: ClassVar[Literal["image", "tabular"]] = "image"
    group: ClassVar[str] = "geometric"
    severities: ClassVar[tuple[int, ...]] = tuple(range(15, 181, 15))
    reference: ClassVar[Reference] = Reference(
        "Ovadia et al.",
        2019,
        arxiv="1906.02530",
        title="Can You Trust Your Model's Uncertainty? Evaluating Predictive Uncertainty Under Dataset Shift",
    )

    def __call__(
        self, x: Float[Tensor, "batch channel height width"], severity: int, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The turned images; 0 returns them as they are. Raises ValueError for another angle."""
        check_severity(self, severity)
        check_range(self, x)
        if severity == 0:
            return x
        grid = _source(*x.shape[-2:], degrees=severity).to(x.device, x.dtype)
        turned = F.grid_sample(x, grid.expand(len(x), *grid.shape), padding_mode="zeros", align_corners=False)
        return turned.clamp_(0, 1)  # the four weights sum to one but for rounding


def _source(height: int, width: int, *, degrees: float) -> Float[Tensor, "height width 2"]:
    """Where each pixel comes from, (x, y) in units of half the image with (0, 0) at its centre; float64."""
    y = (torch.arange(height, dtype=torch.float64) - (height - 1) / 2)[:, None]
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.stack([(cos * x - sin * y) * 2 / width, (sin * x + cos * y) * 2 / height], dim=-1)
