"""Rows of data on one device, handed out in batches: pixels stay uint8 until a batch is made of them."""

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from levelhead.tasks.augment import Augment
from levelhead.types import Batch

HASH_BYTES = 16  # of one row: two of a billion different rows meet with probability 1e-21


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A named part of a task's rows.

    x  uint8 (example, channel, height, width), pixels; or float (example, *input): features in their own units,
       and pixels in [0, 1] where there are four axes.
    y  int64 (example, *site), labels; or float (example, *site, target or class), targets or soft labels.

    Raises ValueError when x and y do not fit together, are empty, not finite, or no pixels.
    """

    name: str
    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        where = f"Split {self.name!r}"
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(f"{where}: x has {len(x)} rows and y has {len(y)}; wants the same number, at least one")
        if x.device != y.device:
            raise ValueError(f"{where}: x is on {x.device} and y on {y.device}; wants one device")
        if x.ndim < 2 or not (x.is_floating_point() or (x.dtype == torch.uint8 and x.ndim == 4)):
            raise ValueError(
                f"{where}: x is {x.dtype} of shape {tuple(x.shape)}; wants uint8 pixels "
                "(example, channel, height, width) or floats (example, feature)"
            )
        if not (y.dtype == torch.int64 or (y.is_floating_point() and y.ndim >= 2)):
            raise ValueError(
                f"{where}: y is {y.dtype} of shape {tuple(y.shape)}; wants int64 labels (example,) or float targets "
                "(example, target)"
            )
        for name, values in (("x", x), ("y", y)):
            if values.is_floating_point() and not bool(values.isfinite().all()):
                raise ValueError(f"{where}: {name} holds NaN or infinite values; drop or fill these rows first")
        if x.ndim == 4 and x.is_floating_point() and not 0 <= float(x.min()) <= float(x.max()) <= 1:
            raise ValueError(
                f"{where}: float pixels must lie in [0, 1], got [{float(x.min()):g}, {float(x.max()):g}]; "
                "undo the normalisation (networks do their own), or give uint8"
            )

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} rows of {tuple(self.x.shape[1:])} {self.x.dtype} on {self.device})"

    def __len__(self) -> int:
        return len(self.x)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.x.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.x.device

    def to(self, device: torch.device | str) -> "Split":
        """The same rows on `device`."""
        clone = copy.copy(self)  # with what is known about the content
        vars(clone).update(x=self.x.to(device), y=self.y.to(device))
        return clone

    def take(self, rows: int | Int[Tensor, " taken"], *, name: str | None = None) -> "Split":
        """The rows at these places, in this order; a number takes as many from the front.

        Raises ValueError when there are not so many.
        """
        if isinstance(rows, int):
            if not 0 < rows <= len(self):
                raise ValueError(f"Split {self.name!r}.take: {rows} rows of {len(self)}")
            rows = torch.arange(rows)
        rows = rows.to(self.device)
        return Split(name or self.name, self.x[rows], self.y[rows])

    def ordered(self, size: int) -> Iterator[Batch]:
        """All rows in order, clean, in batches of `size`; the last may be short.

        Raises ValueError when `size` is not positive.
        """
        check_size(size)
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            index = torch.arange(start, min(start + size, len(self)), device=self.device)
            yield Batch(as_float(self.x[rows]), self.y[rows], index)

    def batches(
        self, size: int | None, generator: torch.Generator, *, augment: Augment | None = None
    ) -> Iterator[Batch]:
        """All rows once, shuffled and augmented, in batches of `size`.

        The last batch may be short, but a single row that is left over joins the batch before it: BatchNorm cannot
        train on one. `size=None` is the full batch: clean, ordered, complete, and it draws nothing.
        Order and augmentation are drawn from `generator`, a CPU generator, so that devices agree.
        Raises ValueError when `size` is not positive.
        """
        if size is None:
            yield from self.ordered(len(self))
            return
        order = torch.randperm(len(self), generator=generator).to(self.device)
        starts = self._starts(size)
        for start, stop in zip(starts, [*starts[1:], len(self)], strict=True):
            index = order[start:stop]
            x = self.x.index_select(0, index)
            if augment is not None:
                x = augment(x, generator)
            yield Batch(as_float(x), self.y.index_select(0, index), index)

    def num_batches(self, size: int | None) -> int:
        """How many batches `batches(size, ...)` gives."""
        return 1 if size is None else len(self._starts(size))

    def _starts(self, size: int) -> list[int]:
        check_size(size)
        starts = list(range(0, len(self), size))
        if len(starts) > 1 and len(self) - starts[-1] == 1:
            starts.pop()
        return starts

    @cached_property
    def row_hashes(self) -> tuple[bytes, ...]:
        """A hash of the content of every row, x and y together: equal rows have equal hashes, wherever they stand."""
        kind = f"{self.x.dtype} {tuple(self.x.shape[1:])} {self.y.dtype} {tuple(self.y.shape[1:])}".encode()
        seed = hashlib.blake2b(kind, digest_size=HASH_BYTES)
        x, y = (as_bytes(values) for values in (self.x, self.y))
        x_size, y_size = len(x) // len(self), len(y) // len(self)
        hashes = []
        for row in range(len(self)):
            h = seed.copy()
            h.update(x[row * x_size : (row + 1) * x_size])
            h.update(y[row * y_size : (row + 1) * y_size])
            hashes.append(h.digest())
        return tuple(hashes)

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the whole content, in order."""
        return hashlib.blake2b(b"".join(self.row_hashes), digest_size=6).hexdigest()


def unlabelled(name: str, x: Shaped[Tensor, "example *input"]) -> Split:
    """A split without labels, or of none of the classes: y is -1."""
    return Split(name, x, torch.full((len(x),), -1, device=x.device))


def check_size(size: int) -> None:
    """Raise ValueError unless `size` is a batch size."""
    if size < 1:
        raise ValueError(f"batch size must be at least 1 (None is the full batch), got {size}")


def as_float(x: Shaped[Tensor, "batch *input"]) -> Float[Tensor, "batch *input"]:
    """Inputs as networks take them: float32, uint8 pixels divided by 255."""
    if x.dtype == torch.uint8:
        return x.to(torch.float32).div_(255)
    return x.to(torch.float32)


def as_bytes(values: Shaped[Tensor, "example *rest"]) -> memoryview:
    """The content in memory order, without a copy where it lies on the CPU."""
    flat = rearrange(values.detach().cpu().contiguous(), "... -> (...)")
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
