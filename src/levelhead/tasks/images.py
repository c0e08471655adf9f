"""Pictures as tensors: decoding (needs Pillow) and resizing (does not)."""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from levelhead.types import require

BILINEAR = 2  # Pillow's number for it


def resized(x: UInt8[Tensor, "example channel h w"], size: int) -> UInt8[Tensor, "example channel {size} {size}"]:
    """The images bilinearly resized to `size` x `size`, antialiased where they shrink.

    In float64, so that rounding back to bytes meets no tie by the hardware's leave.
    """
    smooth = F.interpolate(x.double(), size=(size, size), mode="bilinear", antialias=True)
    return smooth.round().clamp(0, 255).to(torch.uint8)


def decoded(
    sources: Sequence[bytes | Path], *, size: int | None = None, grey: bool = False
) -> UInt8[Tensor, "example channel height width"]:
    """Encoded pictures (any format of Pillow's) as one tensor; see `stacked`. Raises MissingExtra without Pillow."""
    pillow = require("PIL.Image", extra="study")

    def opened() -> Iterator[Any]:
        for source in sources:
            with pillow.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
                yield picture

    return stacked(opened(), size=size, grey=grey)


def stacked(
    pictures: Iterable[Any], *, size: int | None = None, grey: bool = False
) -> UInt8[Tensor, "example channel height width"]:
    """Pillow's pictures as one tensor: three channels, or one where `grey`.

    `size` resizes every picture to a square; without it they must agree. Raises ValueError where they do not, or where
    there is none.
    """
    arrays: list[np.ndarray] = []
    for picture in pictures:
        plain = picture.convert("L" if grey else "RGB")
        if size is not None and plain.size != (size, size):
            plain = plain.resize((size, size), resample=BILINEAR)
        arrays.append(np.asarray(plain))
        if arrays[-1].shape != arrays[0].shape:
            raise ValueError(
                f"picture {len(arrays)} ({getattr(picture, 'filename', '') or 'in memory'}) is {plain.width} x "
                f"{plain.height}, the first is {arrays[0].shape[1]} x {arrays[0].shape[0]}; give size=32 (or another) "
                "to resize all to a square"
            )
    if not arrays:
        raise ValueError("there are no pictures")
    tensor = torch.from_numpy(np.stack(arrays))
    return rearrange(tensor, "n h w -> n 1 h w") if grey else rearrange(tensor, "n h w c -> n c h w").contiguous()
