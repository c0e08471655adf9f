"""Splits that stay in their files: rows are read when a batch asks for them, and none before."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Int, UInt8
from torch import Tensor

from levelhead.tasks.images import decoded
from levelhead.tasks.split import as_float, check_size
from levelhead.types import Batch


class Pixels(Protocol):
    """Images in files."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, rows: Sequence[int]) -> UInt8[Tensor, "row channel height width"]:
        """Those at these places."""

    def fingerprint(self) -> bytes:
        """Something that differs where the images do."""


@dataclass(frozen=True, eq=False, repr=False)
class StoredSplit:
    """A split of images in files; it has what evaluations ask of a `Split`, but no `x`.

    places  which of the images are its rows; None: all, in order.
    y       int64 (row,), labels.
    """

    name: str
    pixels: Pixels
    y: Tensor
    places: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.pixels) if self.places is None else len(self.places)
        if count != len(self.y) or count == 0:
            raise ValueError(f"StoredSplit {self.name!r}: {count} images and {len(self.y)} labels; wants as many, some")
        if self.y.dtype != torch.int64:
            raise ValueError(f"StoredSplit {self.name!r}: y is {self.y.dtype}; wants int64 labels")

    def __repr__(self) -> str:
        return f"StoredSplit({self.name!r}, {len(self)} rows of {self.input_shape} in files)"

    def __len__(self) -> int:
        return len(self.y)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.pixels.shape

    def to(self, device: torch.device | str) -> "StoredSplit":
        """Itself: rows go to a device batch by batch."""
        return self

    def take(self, rows: int | Int[Tensor, " taken"], *, name: str | None = None) -> "StoredSplit":
        """The rows at these places, in this order; a number takes as many from the front. Nothing is read."""
        chosen = torch.arange(rows) if isinstance(rows, int) else rows.cpu()
        places = chosen if self.places is None else self.places[chosen]
        return replace(self, name=name or self.name, y=self.y[chosen], places=places)

    def ordered(self, size: int) -> Iterator[Batch]:
        """All rows in order in batches of `size`, each read when it is asked for; the last may be short."""
        check_size(size)
        for start in range(0, len(self), size):
            index = torch.arange(start, min(start + size, len(self)))
            places = index if self.places is None else self.places[index]
            yield Batch(as_float(self.pixels.read(places.tolist())), self.y[index], index)

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the images' fingerprint, the labels and the places."""
        h = hashlib.blake2b(self.pixels.fingerprint(), digest_size=6)
        h.update(self.y.numpy().tobytes())
        h.update(b"" if self.places is None else self.places.numpy().tobytes())
        return h.hexdigest()


@dataclass(frozen=True)
class ArrayPixels:
    """`count` images of an .npy file of bytes, from place `start`: (image, height, width) or with channels last."""

    path: Path
    start: int
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        height, width, *channels = mapped(self.path).shape[1:]
        return (channels[0] if channels else 1), height, width

    def read(self, rows: Sequence[int]) -> UInt8[Tensor, "row channel height width"]:
        """Those at these places, copied from the mapped file."""
        pixels = torch.from_numpy(mapped(self.path)[[self.start + row for row in rows]])
        return rearrange(pixels, "n h w -> n 1 h w" if pixels.ndim == 3 else "n h w c -> n c h w").contiguous()

    def fingerprint(self) -> bytes:
        """A hash of the content."""
        content = mapped(self.path)[self.start : self.start + self.count]
        return hashlib.blake2b(content.tobytes()).digest()


@dataclass(frozen=True)
class PicturePixels:
    """Pictures in files of their own, made to be `side` x `side` where they are not; needs Pillow (extra `study`)."""

    files: tuple[Path, ...]
    side: int
    grey: bool = False

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return (1 if self.grey else 3), self.side, self.side

    def read(self, rows: Sequence[int]) -> UInt8[Tensor, "row channel height width"]:
        """Those at these places, decoded."""
        return decoded([self.files[row] for row in rows], size=self.side, grey=self.grey)

    def fingerprint(self) -> bytes:
        """A hash of the files' names and sizes: reading millions of pictures for a receipt would take hours."""
        lines = [f"{file.parent.name}/{file.name} {file.stat().st_size}" for file in self.files]
        return hashlib.blake2b("\n".join([str(self.side), *lines]).encode()).digest()


@lru_cache(maxsize=128)
def mapped(path: Path) -> Any:
    """The array of an .npy file, mapped into memory. Raises ValueError unless it holds images of bytes."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise ValueError(
            f"{path}: wants bytes of shape (image, height, width, channel), got {array.dtype} {array.shape}"
        )
    return array
