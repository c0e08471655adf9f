"""Flips, crops and shifts of a batch of images, as one gather.

Every output pixel is some input pixel, and rows and columns are chosen independently: so flip, crop and shift compose
into one index per axis and example, and the batch is read once, in whatever type it has.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Augment:
    """Random flip, then crop, then shift, drawn for each image alone.

    flip     mirror left and right with probability 1/2.
    crop     pad by this many pixels on every side, then cut the old size out at a uniform place.
    shift    move cyclically by up to this many pixels along each axis: what leaves on one side enters on the other.
    padding  what `crop` finds outside: "zeros" (black), "edge" (the border pixel) or "reflect" (the mirrored image).

    The defaults are those of He et al. (arXiv 1512.03385) for CIFAR-10.
    """

    flip: bool = True
    crop: int = 4
    shift: int = 0
    padding: str = "zeros"

    PADDINGS: ClassVar = ("zeros", "edge", "reflect")

    def __post_init__(self) -> None:
        if self.crop < 0 or self.shift < 0:
            raise ValueError(f"Augment: crop and shift are pixels, at least 0; got {self.crop} and {self.shift}")
        if self.padding not in self.PADDINGS:
            raise ValueError(f"Augment: padding must be one of {self.PADDINGS}, got {self.padding!r}")
        if not (self.flip or self.crop or self.shift):
            raise ValueError("Augment: nothing is switched on; write augment=None for clean batches")

    def __call__(
        self, x: Shaped[Tensor, "batch channel height width"], generator: torch.Generator
    ) -> Shaped[Tensor, "batch channel height width"]:
        """The batch, augmented; same type and device as `x`.

        Draws come from `generator`, which lives on the CPU, so that every device sees the same augmentation.
        Raises ValueError when an image is too small for the crop or shift.
        """
        batch, _, height, width = x.shape
        reach = max(self.crop, self.shift)
        if reach >= min(height, width):
            raise ValueError(f"{self} moves by up to {reach} pixels, but the images are only {height} x {width}")
        mirrored = torch.rand(batch, generator=generator) < 0.5
        cropped = torch.randint(-self.crop, self.crop + 1, (2, batch), generator=generator)
        shifted = torch.randint(-self.shift, self.shift + 1, (2, batch), generator=generator)
        rows = self._sources(height, cropped[0], shifted[0])
        columns = self._sources(width, cropped[1], shifted[1])
        if self.flip:
            inside = columns < width
            columns = torch.where(rearrange(mirrored, "b -> b 1") & inside, width - 1 - columns, columns)
        if self.padding == "zeros" and self.crop:
            x = F.pad(x, (0, 1, 0, 1))  # one black row and column, which all places outside share
        flat = rearrange(x, "b c h w -> b c (h w)")
        index = rearrange(rows, "b h -> b h 1") * x.shape[-1] + rearrange(columns, "b w -> b 1 w")
        index = rearrange(index, "b h w -> b 1 (h w)").to(x.device, non_blocking=True)
        taken = flat.gather(2, index.expand(-1, flat.shape[1], -1))
        return rearrange(taken, "b c (h w) -> b c h w", h=height)

    def _sources(
        self, size: int, cropped: Int[Tensor, " batch"], shifted: Int[Tensor, " batch"]
    ) -> Int[Tensor, "batch {size}"]:
        """For every place along an axis, the place it is read from; `size` stands for the black border."""
        place = (torch.arange(size) - rearrange(shifted, "b -> b 1")) % size
        place = place + rearrange(cropped, "b -> b 1")
        if self.padding == "edge":
            return place.clamp(0, size - 1)
        if self.padding == "reflect":
            place = place.abs()
            return torch.minimum(place, 2 * (size - 1) - place)
        return torch.where((place >= 0) & (place < size), place, size)
