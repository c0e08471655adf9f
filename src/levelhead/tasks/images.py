"""Pictures as tensors: decoding (needs Pillow) and resizing (does not)."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from levelhead.types import require


def resized(x: UInt8[Tensor, "example channel h w"], size: int) -> UInt8[Tensor, "example channel {size} {size}"]:
    """The images bilinearly resized to `size` x `size`, antialiased where they shrink.

    In float64, so that rounding back to bytes meets no tie by the hardware's leave.
    """
    smooth = F.interpolate(x.double(), size=(size, size), mode="bilinear", antialias=True)
    return smooth.round().clamp(0, 255).to(torch.uint8)


def decoded(
    sources: Iterable[bytes | Path], *, size: int | None = None, grey: bool = False
) -> UInt8[Tensor, "example channel height width"]:
    """Encoded pictures (any format of Pillow's) as one tensor; RGB, or one channel where `grey`.

    `size` resizes every picture to a square; without it they must agree. Raises ValueError where they do not, and
    MissingExtra without Pillow.
    """
    pillow = require("PIL.Image", extra="study")
    arrays = []
    for place, source in enumerate(sources):
        with pillow.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            picture = image.convert("L" if grey else "RGB")
            if size is not None and picture.size != (size, size):
                picture = picture.resize((size, size), pillow.Resampling.BILINEAR)
        arrays.append(np.asarray(picture))
        if arrays[-1].shape != arrays[0].shape:
            name = source.name if isinstance(source, Path) else f"picture {place}"
            raise ValueError(
                f"{name} is {picture.size[0]} x {picture.size[1]}, the first is {arrays[0].shape[1]} x "
                f"{arrays[0].shape[0]}; give size=32 (or any other) to resize all to a square"
            )
    stacked = torch.from_numpy(np.stack(arrays))
    return stacked.unsqueeze(1) if grey else stacked.movedim(-1, 1).contiguous()
