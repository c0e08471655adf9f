"""The words every layer speaks: batches, references, shapes and the tree of errors.

LevelheadError
|-- NoLayerReplaced    a surgery found nothing to change
|-- CannotCompose      two parts that do not make sense together, with what to write instead
|-- NonFiniteLoss      training left the numbers
`-- MissingExtra       an optional dependency is absent
"""

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Scalar = Float[Tensor, ""]
Targets = Int[Tensor, "..."] | Float[Tensor, "..."]


class LevelheadError(Exception):
    """Root of the errors that are this library's own."""


class NoLayerReplaced(LevelheadError):
    """A surgery matched no layer: training on would be training without the method."""


class CannotCompose(LevelheadError):
    """Parts that make no sense together; the text says why and what to write instead."""


class NonFiniteLoss(LevelheadError):
    """The loss became infinite or NaN; the text says where and what to try."""


class MissingExtra(LevelheadError, ImportError):
    """An optional dependency is missing; the text names the extra that brings it."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtra` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{module} is needed here and could not be imported ({error}). "
            f'Install the extra that brings it: pip install "levelhead[{extra}]"'
        ) from error


class Batch(NamedTuple):
    """Some rows of a split.

    x      float (batch, *input): pixels in [0, 1] or features in their own units; normalisation is a layer.
    y      labels int (*member, batch, *site), soft labels or targets float (..., batch, *site, class or target).
    index  int (batch,): the place of each row in its split.
    hyper  float (member, batch, hyper): a draw of hyper-parameters for every row, or None.
    per_member  whether x and index hold (member batch) rows, member-major, each seen by its member alone.
    """

    x: Float[Tensor, "batch *input"]
    y: Targets
    index: Int[Tensor, " batch"]  # type: ignore[assignment]  # shadows tuple.index, which nobody asks of a batch
    hyper: Float[Tensor, "member batch hyper"] | None = None
    per_member: bool = False

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "Batch":
        """The batch on `device`; `dtype` applies to floating tensors only."""
        y = self.y.to(device, dtype) if self.y.is_floating_point() else self.y.to(device)
        hyper = None if self.hyper is None else self.hyper.to(device, dtype)
        return Batch(self.x.to(device, dtype), y, self.index.to(device), hyper, self.per_member)


@dataclass(frozen=True)
class Reference:
    """Where a method comes from; `levelhead cite` turns it into BibTeX."""

    authors: str
    year: int
    arxiv: str | None = None
    title: str = ""
