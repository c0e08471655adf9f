"""Tasks from the user's own data: tensors, arrays, or anything with rows (a torch Dataset)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from levelhead.likelihood import Categorical, Likelihood
from levelhead.tasks.augment import Augment
from levelhead.tasks.carve import carve
from levelhead.tasks.measure import gaussian
from levelhead.tasks.split import Split, unlabelled
from levelhead.tasks.task import Task

Pair = tuple[Any, Any]  # x and y: tensors, arrays or nested lists


class Rows(Protocol):
    """What is needed of a data set: a length, and (x, y) at every place. A torch map-style Dataset is one."""

    def __len__(self) -> int:
        """How many rows there are."""

    def __getitem__(self, place: int) -> Sequence[Any]:
        """The row (x, y) at this place."""


def from_tensors(
    x: Any,
    y: Any,
    *,
    test: Pair | None = None,
    val: Pair | None = None,
    calibration: Pair | None = None,
    name: str = "own",
    fractions: tuple[float, float, float] = (0.1, 0.1, 0.2),
    likelihood: Likelihood | None = None,
    classes: Sequence[str] = (),
    shifts: Mapping[str, Pair] | None = None,
    ood: Mapping[str, Any] | None = None,
    unlabelled: Any | None = None,
    augment: Augment | None = None,
    known_overlaps: bool = False,
    seed: int = 0,
    args: Mapping[str, Any] | None = None,
    columns: Sequence[str] = (),
) -> Task:
    """A task of your own data.

    x  uint8 pixels (example, channel, height, width), float pixels in [0, 1], or features (example, feature).
    y  integers are labels, floats are regression targets (example,) or (example, target).

    Splits that are not given are drawn from (x, y), in these `fractions` for val, calibration and test, class by class,
    with `seed`; rows that occur twice stay in train, so that nothing leaks. `likelihood` defaults to the classes that
    occur, or to a Gaussian standardised by the training rows. `ood` and `unlabelled` hold inputs only.
    `columns` names the features.
    Raises TestDataLeak when given splits share rows, and ValueError for data that is no data.
    """
    given = {
        kind: as_split(kind, *pair)
        for kind, pair in (("val", val), ("calibration", calibration), ("test", test))
        if pair is not None
    }
    pool = as_split("train", x, y)
    kinds = ("val", "calibration", "test")
    shares = dict(zip(kinds, fractions, strict=True))
    sizes = {kind: max(1, round(shares[kind] * len(pool))) for kind in kinds if kind not in given}
    splits = given | (carve(pool, sizes, seed=seed, apart_from=given.values()) if sizes else {"train": pool})
    return Task(
        name=name,
        train=splits["train"],
        val=splits["val"],
        calibration=splits["calibration"],
        test=splits["test"],
        likelihood=likelihood or inferred(splits["train"].y, classes),
        unlabelled=None if unlabelled is None else without_labels("unlabelled", unlabelled),
        shifts={kind: as_split(kind, *pair) for kind, pair in (shifts or {}).items()},
        ood={kind: without_labels(kind, inputs) for kind, inputs in (ood or {}).items()},
        augment=augment,
        classes=tuple(classes),
        known_overlaps=known_overlaps,
        columns=tuple(columns),
        args={**(args or {}), "seed": seed, "fractions": list(fractions)} if sizes else dict(args or {}),
    )


def from_dataset(train: Rows, *, test: Rows | None = None, val: Rows | None = None, **options: Any) -> Task:
    """A task of data sets whose rows are (x, y): every row is read once and kept. Options are those of `from_tensors`.

    x may be a tensor, an array or a picture of Pillow's, y a number or an array. Switch random augmentation off in the
    data set, or it freezes as it was read; give `augment` here instead.
    """
    x, y = gathered(train)
    held_out = [None if rows is None else gathered(rows) for rows in (test, val)]
    return from_tensors(x, y, test=held_out[0], val=held_out[1], **options)


def gathered(rows: Rows) -> tuple[Tensor, Tensor]:
    """All rows of a data set, stacked."""
    pairs = [rows[place] for place in range(len(rows))]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{type(rows).__name__}: wants at least one row, and rows of two: (x, y)")
    return torch.stack([as_input(pair[0]) for pair in pairs]), torch.stack([torch.as_tensor(pair[1]) for pair in pairs])


def as_input(value: Any) -> Tensor:
    """One input as a tensor; pictures of Pillow's, whose channels come last or not at all, as uint8 channels first."""
    if isinstance(value, Tensor):
        return value
    array = np.array(value)
    if isinstance(value, np.ndarray | list | tuple | float | int):
        return torch.from_numpy(array)
    return torch.from_numpy(array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0).copy())


def as_split(name: str, x: Any, y: Any) -> Split:
    """A split of anything array-like: floats become float32, integers labels, one target a column."""
    targets = torch.as_tensor(y)
    if targets.is_floating_point():
        targets = targets.float()
        targets = targets.unsqueeze(1) if targets.ndim == 1 else targets
    else:
        targets = targets.long()
    return Split(name, floats(x), targets)


def without_labels(name: str, x: Any) -> Split:
    """A split of inputs alone."""
    return unlabelled(name, floats(x))


def floats(x: Any) -> Tensor:
    """Inputs in float32, unless they are bytes."""
    inputs = torch.as_tensor(x)
    return inputs if inputs.dtype == torch.uint8 and inputs.ndim == 4 else inputs.float()


def inferred(y: Tensor, classes: Iterable[str]) -> Likelihood:
    """Gaussian for float targets; for labels as many classes as are named, or as occur."""
    if y.is_floating_point():
        return gaussian(y)
    return Categorical(len(tuple(classes)) or max(2, int(y.max()) + 1))
