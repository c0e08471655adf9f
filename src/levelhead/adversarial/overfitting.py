"""Catastrophic overfitting: single-step training that fits the corners of the box and nothing between them.

Within some hundred steps the accuracy on single-step examples rises towards 1 while that under an attack of several
steps falls to 0 (Wong, Rice & Kolter, arXiv 2001.03994, section 5.1).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.likelihood import per_row
from levelhead.types import Targets


def detect_catastrophic_overfitting(history: Sequence[float], drop: float = 0.2) -> int | None:
    """The first epoch (from 0) whose accuracy under an attack of several steps fell by more than `drop` from the last.

    history  that accuracy on training rows, in [0, 1], an epoch each. None where it never fell so far.

    Raises ValueError for accuracies outside [0, 1], or a drop outside (0, 1).

    >>> detect_catastrophic_overfitting([0.25, 0.32, 0.36, 0.04, 0.0])
    3
    """
    check_drop("detect_catastrophic_overfitting", drop)
    if not all(0 <= accuracy <= 1 for accuracy in history):
        raise ValueError(f"detect_catastrophic_overfitting: history wants accuracies in [0, 1], got {list(history)}")
    pairs = enumerate(pairwise(history), start=1)
    return next((epoch for epoch, (before, now) in pairs if before - now > drop), None)


def collapse_epoch(robust: Sequence[float], single_step: Sequence[float], share: float = 1 / 3) -> int | None:
    """The first epoch (from 0) with robust accuracy below `share` of its peak so far and single-step accuracy risen.

    robust       under an attack of several steps; single_step: on the examples trained on. Both an epoch each.
    Slower to speak than a drop between two epochs, and it does not miss a collapse that takes several. "Risen": above
    what it was when robust accuracy was at its peak. Raises ValueError for histories of different lengths.
    """
    if len(robust) != len(single_step):
        raise ValueError(f"collapse_epoch: {len(robust)} epochs of robust accuracy, {len(single_step)} of single-step")
    peak = 0
    for epoch, (now, trained) in enumerate(zip(robust, single_step, strict=True)):
        if now < share * robust[peak] and trained > single_step[peak]:
            return epoch
        if now > robust[peak]:
            peak = epoch
    return None


def hits(
    outputs: Float[Tensor, "row *batch class"], y: Targets, *, void: int | None = None
) -> tuple[Int[Tensor, ""], Int[Tensor, ""]]:
    """How many rows and sites that are not void each member labels as y does, and how many there are, summed."""
    labels = y.argmax(-1) if y.is_floating_point() else y
    labels = per_row(labels, outputs.shape[:-1])
    counted = torch.ones_like(labels, dtype=torch.bool) if void is None else labels != void
    return ((outputs.argmax(-1) == labels) & counted).sum(), counted.sum()


def check_drop(name: str, drop: float) -> None:
    """ValueError for a fall of accuracy that cannot be."""
    if not 0 < drop < 1:
        raise ValueError(f"{name}: drop wants a share of accuracy in (0, 1), got {drop}")
