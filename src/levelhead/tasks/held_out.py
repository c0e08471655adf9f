"""Classes kept out of a task: their test rows are its near out-of-distribution set."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from levelhead.likelihood import Categorical
from levelhead.tasks.split import Split, unlabelled
from levelhead.tasks.task import Task

NEAR = "near-held-out"


def without_classes(task: Task, classes: Sequence[int]) -> Task:
    """The task of the other classes, renumbered in their order; test rows of `classes` become `ood["near-held-out"]`.

    Rows of these classes are in no other split: not in train, val, calibration or stored shifts, nor, where it has
    labels, in unlabelled. Sets in `task.ood` stay.

    Raises ValueError unless the task has one label a row, and at least two classes with rows remain.
    """
    held = sorted(set(classes))
    if not isinstance(task.likelihood, Categorical) or task.train.y.dtype != torch.int64 or task.train.y.ndim != 1:
        raise ValueError(f"holdout_classes: {task.name!r} has not one label a row, so no classes to hold out")
    num_classes = task.likelihood.num_classes
    if not held or min(held) < 0 or max(held) >= num_classes or len(held) > num_classes - 2:
        raise ValueError(
            f"holdout_classes: wants some of the labels 0 to {num_classes - 1} of {task.name!r}, leaving at least two; "
            f"got {list(classes)}"
        )
    number = torch.full((num_classes,), -1)
    number[[label for label in range(num_classes) if label not in held]] = torch.arange(num_classes - len(held))

    outer = task.test.x[_labels(task.test, number) == -1]
    if len(outer) == 0:
        raise ValueError(f"holdout_classes: {task.name!r} has no test rows of {held}; choose classes that it has")
    void = task.likelihood.void

    def kept(split: Any) -> Any:
        return _renumbered(split, number, void=void)

    return dataclasses.replace(
        task,
        name=f"{task.name}-without-{'-'.join(map(str, held))}",
        train=kept(task.train),
        val=kept(task.val),
        calibration=kept(task.calibration),
        test=kept(task.test),
        unlabelled=None if task.unlabelled is None else _known(task.unlabelled, number),
        shifts={name: kept(split) for name, split in task.shifts.items()},
        ood={NEAR: unlabelled(NEAR, outer), **task.ood},
        likelihood=Categorical(num_classes - len(held), void),
        classes=tuple(name for label, name in enumerate(task.classes) if label not in held),
        args={**task.args, "holdout_classes": held},
    )


def _labels(split: Any, number: Int[Tensor, " label"]) -> Int[Tensor, " row"]:
    """The new label of every row, -1 for the classes held out and for labels that are none."""
    known = (split.y >= 0) & (split.y < len(number))
    return torch.where(known, number.to(split.y.device)[split.y.clamp(0, len(number) - 1)], -1)


def _renumbered(split: Any, number: Int[Tensor, " label"], *, void: int | None) -> Any:
    """The rows that are not held out (void ones stay), under their new labels; of a split in files, too."""
    labels = _labels(split, number)
    empty = split.y == void if void is not None else torch.zeros_like(split.y, dtype=torch.bool)
    rows = ((labels != -1) | empty).nonzero()[:, 0]
    return dataclasses.replace(split.take(rows), y=torch.where(empty, split.y, labels)[rows])


def _known(split: Split, number: Int[Tensor, " label"]) -> Split:
    """Unlabelled rows, without those whose label says that they are of a class held out."""
    held = (split.y >= 0) & (_labels(split, number) == -1)
    return Split(split.name, split.x[~held], split.y[~held])
