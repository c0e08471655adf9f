"""What the tests of conformal steps share: repeated draws of calibration and test rows, and the law of coverage."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from posthoc.small import Table, tabled
from scipy.stats import betabinom
from torch import Tensor

from levelhead.conformal.ranks import rank
from levelhead.predictor import predict
from levelhead.tasks.task import Task

CALIBRATION, TEST, REPEATS = 99, 400, 60


def classes(seed: int, k: int = 6, rows: int = CALIBRATION + TEST) -> tuple[Table, Tensor]:
    """A wrong predictor (too sure, and biased) and labels from another law."""
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(rows, k, dtype=torch.float64, generator=generator)
    y = torch.multinomial((1.5 * signal).softmax(-1), 1, generator=generator)[:, 0]
    return Table((3 * signal + torch.linspace(0, 1, k).double())[None]), y


def targets(seed: int, rows: int = CALIBRATION + TEST) -> tuple[Table, Tensor]:
    """Two Gaussians with a wrong spread, and skewed targets of varying noise."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(rows, 1, dtype=torch.float64, generator=generator)
    scale = 0.5 + mean.abs()
    y = mean + scale * (torch.rand(rows, 1, dtype=torch.float64, generator=generator).log() + 1)
    means = torch.stack([mean - 0.2, mean + 0.3])
    return Table(means=means, variances=(0.4 * scale).square().expand(2, -1, -1).contiguous()), y


def repeats(make: Callable[..., tuple[Table, Tensor]]) -> Iterator[tuple[Table, Task]]:
    """Fresh calibration and test rows, again and again."""
    for seed in range(REPEATS):
        table, y = make(seed)
        num_classes = None if y.is_floating_point() else table.logits.shape[-1]
        yield table, tabled(y, (CALIBRATION, TEST), num_classes=num_classes)


def covered(step: Any, make: Callable[..., tuple[Table, Tensor]]) -> list[int]:
    """Of the test rows of each repeat, how many are covered."""
    counts = []
    for table, task in repeats(make):
        belief, y = predict(step(table, task), task.test), task.test.y
        if belief.sets is not None:
            inside = belief.sets.gather(-1, y[:, None])[:, 0]
        else:
            inside = ((belief.intervals[..., 0] <= y) & (y <= belief.intervals[..., 1]))[:, 0]
        counts.append(int(inside.sum()))
    return counts


def follows_the_beta(counts: list[int], alpha: float) -> None:
    """Coverage given the calibration rows is Beta(k, n + 1 - k): mean and spread, within four standard errors."""
    k = rank(CALIBRATION, alpha)
    law = betabinom(TEST, k, CALIBRATION + 1 - k)
    found = torch.tensor(counts, dtype=torch.float64)
    assert abs(float(found.mean()) - law.mean()) < 4 * law.std() / REPEATS**0.5
    spread = 4 * (2 / (REPEATS - 1)) ** 0.5 / 2  # of a standard deviation, relative
    assert abs(float(found.std()) / law.std() - 1) < spread
