"""Noise in one band of spatial frequencies, of a fixed norm: which frequencies does a predictor live on?"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor

from levelhead.shifts._base import SEVERITIES, check_range, check_severity, standard_normal
from levelhead.types import Reference


@dataclass(frozen=True)
class FrequencyNoise:
    """clip(x + c n / rms(n)), where n is noise of random signs, filtered to the ring | |w| - f pi | <= s pi.

    frequency, half_width  f and s, in units of pi radians a pixel; |w| = sqrt(wx^2 + wy^2), the mean excluded. A ring
                           that is finer than the image's own frequencies takes those nearest to its middle.
    levels                 c, the root mean square over all values of an image, of severities 1 to 5.

    Images (batch, channel, height, width) in [0, 1]; channels have their own noise. To see a predictor's profile,
    evaluate several frequencies at one severity. Park & Kim (arXiv 2202.06709), with these deviations: their ring is
    square, not symmetric about zero for even sizes, and its energy grows with f, so that frequencies cannot be compared
    with one another; here the mask is circular and symmetric and every frequency has the same norm before clipping.
    Their amplitude is not stated: ours.
    """

    kind: ClassVar[Literal["image", "tabular"]] = "image"
    group: ClassVar[str] = "frequency"
    severities: ClassVar[tuple[int, ...]] = SEVERITIES
    reference: ClassVar[Reference] = Reference(
        "Park and Kim", 2022, arxiv="2202.06709", title="How Do Vision Transformers Work?"
    )

    frequency: float = 0.5
    half_width: float = 0.05
    levels: tuple[float, ...] = (0.02, 0.04, 0.06, 0.09, 0.13)

    def __post_init__(self) -> None:
        if not 0 < self.frequency <= math.sqrt(2):
            raise ValueError(f"FrequencyNoise: frequency is in units of pi, above 0 to 1.41, got {self.frequency}")
        if self.half_width < 0:
            raise ValueError(f"FrequencyNoise: half_width must be at least 0, got {self.half_width}")
        if len(self.levels) != len(self.severities):
            raise ValueError(f"FrequencyNoise: levels wants {len(self.severities)} constants, got {self.levels}")

    def __call__(
        self, x: Float[Tensor, "batch channel height width"], severity: int, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The noisy images; 0 returns them as they are."""
        check_severity(self, severity)
        check_range(self, x)
        if severity == 0:
            return x
        noise = self.filtered(standard_normal(x, generator).sign())
        size = reduce(noise.square(), "b c h w -> b 1 1 1", "mean").sqrt()
        return (x + self.levels[severity - 1] * noise / size).clamp(0, 1)

    def filtered(
        self, noise: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """The part of the noise whose frequencies lie in the ring."""
        height, width = noise.shape[-2:]
        kept = ring(height, width, self.frequency, self.half_width).to(noise.device)
        return torch.fft.irfft2(torch.fft.rfft2(noise) * kept, s=(height, width))


def ring(height: int, width: int, frequency: float, half_width: float) -> Bool[Tensor, "height half"]:
    """Which frequencies of `torch.fft.rfft2` lie in the ring; at least one does, and never the mean."""
    down = rearrange(torch.fft.fftfreq(height, dtype=torch.float64), "h -> h 1")
    across = torch.fft.rfftfreq(width, dtype=torch.float64)
    radius = 2 * (down.square() + across.square()).sqrt()  # in units of pi
    distance = (radius - frequency).abs()
    distance[0, 0] = math.inf
    return distance <= max(half_width, float(distance.min())) + 1e-9
