"""Frost: ice crystals on a window in front of the scene."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.shifts._base import SMALL_SIDE, Corruption, Group, check_colours, uniforms
from levelhead.shifts._ice import ice, small_ice

PICKS = (0, 1, 1, 2, 3)  # the original draws one of five pictures, of which two are the same


@dataclass(frozen=True)
class Frost(Corruption[tuple[float, float]]):
    """a x + b texture, with a random part of one of four textures of ice. Hendrycks and Dietterich, arXiv 1903.12261.

    Constants are (a, b). Images up to 84 pixels take the textures at a fifth of their size, as CIFAR-10-C does. Images
    (batch, 1 or 3 channels, height, width) in [0, 1]; a grey image gets the mean of the texture's colours.
    Deviation: the textures are procedural (see `_ice`), not the original's photographs: ridged noise of five octaves
    with their mean colours, spread and slope of the spectrum. Numbers are not comparable with published frost.
    """

    group: ClassVar[Group] = "weather"

    small: tuple[tuple[float, float], ...] = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
    large: tuple[tuple[float, float], ...] = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))

    def distort(
        self, x: Float[Tensor, "batch channel height width"], level: tuple[float, float], generator: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """The scene behind the ice."""
        check_colours(self, x)
        height, width = x.shape[-2:]
        textures = small_ice() if min(height, width) <= SMALL_SIDE else ice()
        if x.shape[1] == 1:
            textures = textures.mean(1, keepdim=True)
        side = textures.shape[-1]
        textures = rearrange(textures, "texture c h w -> c (texture h w)").to(x.device, x.dtype)
        drawn = uniforms(x, 3, generator)
        which = torch.tensor(PICKS, device=x.device)[(drawn[:, 0] * len(PICKS)).long()]
        down, right = (drawn[:, 1:] * side).long().unbind(1)
        rows = (down[:, None] + torch.arange(height, device=x.device)) % side + side * which[:, None]
        columns = (right[:, None] + torch.arange(width, device=x.device)) % side
        part = textures.index_select(1, (rows[:, :, None] * side + columns[:, None, :]).flatten())
        return torch.add(x * level[0], rearrange(part, "c (b h w) -> b c h w", h=height, w=width), alpha=level[1])
