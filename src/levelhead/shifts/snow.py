"""Snow: falling flakes, blurred by their speed, over a whitened scene."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import Corruption, Group, check_colours, normals, truncated
from levelhead.shifts._filters import motion, zoomed

Level = tuple[float, float, float, float, int, float, float]
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Snow(Corruption[Level]):
    """Thresholded noise, blurred along U(-135, -45) degrees and added twice, over an image mixed with a whiter one.

    Constants are (mean, spread, zoom, threshold, radius, s, mix). Flakes: N(mean, spread^2) a pixel, zoomed into the
    centre, 0 below the threshold, cut to 8 bits, blurred as in MotionBlur by (radius, s). Then x becomes mix x + (1 -
    mix) max(x, 1.5 grey(x) + 0.5), plus the flakes, plus the flakes turned by 180 degrees. Images (batch, 1 or 3
    channels, height, width) in [0, 1]; a grey image is its own grey. Hendrycks and Dietterich, arXiv 1903.12261.
    Deviation: taps of the motion below 1e-7 are left out.
    """

    group: ClassVar[Group] = "weather"

    small: tuple[Level, ...] = (
        (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
        (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
    )
    large: tuple[Level, ...] = (
        (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
        (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
        (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
    )

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: Level, generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The whitened scene under both layers of flakes."""
        check_colours(self, x)
        mean, spread, zoom, threshold, radius, sigma, mix = level
        height, width = x.shape[-2:]
        drawn = normals(x, height * width + 1, generator)
        angle = torch.special.ndtr(drawn[:, -1]) * 90 - 135
        layer = rearrange(drawn[:, :-1], "b (h w) -> b 1 h w", h=height).mul(spread).add_(mean)
        layer = zoomed(layer, zoom) if zoom != 1 else layer
        layer = truncated(layer.masked_fill(layer < threshold, 0.0))
        # rounded to 8 bits, as ImageMagick gives it back
        flakes = truncated(motion(layer, angle, radius=radius, sigma=sigma).add_(0.5 / 255))
        grey = x if x.shape[1] == 1 else torch.einsum("bchw,c->bhw", x, x.new_tensor(LUMA)).unsqueeze(1)
        white = torch.maximum(x, grey * 1.5 + 0.5)
        return torch.lerp(white, x, mix).add_(flakes + flakes.flip(-2, -1))
