"""How a recipe that names no sampler is trained: one protocol for images, one for tables."""

import dataclasses
import re
from typing import Any

from levelhead.catalogue import names
from levelhead.recipe import Fit
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.sgd import SGD
from levelhead.tasks.task import Task

# The epochs of the UCI benchmarks (arXiv 1502.05336, 1612.01474); batches of 32, since a small table has few
# steps else. SGD at the rate that suits images diverges on a Gaussian likelihood.
TABLES = AdamW(epochs=40, batch_size=32, lr=1e-2, weight_decay=0.0, schedule="cosine")


def usual_sampler(task: Task) -> Any:
    """What trains a recipe that does not say: SGD() on images, TABLES on rows of features."""
    return SGD() if task.train.x.ndim > 2 else TABLES


def trained_as_usual(fit: Fit, task: Task, line: str = "") -> Fit:
    """`fit` with the task's usual sampler where it holds the default one, unless its line names a gradient sampler."""
    named = set(re.findall(r"\w+", line)) & set(names("samplers"))
    usual = usual_sampler(task)
    if usual == SGD() or "sgd" in named:
        return fit
    return _replaced(fit, usual)


def _replaced(value: Any, usual: Any) -> Any:
    """The value with every default SGD() that it holds replaced, through combinators and wrappers."""
    for field in ("member", "sampler", "inner"):
        if any(f.name == field for f in dataclasses.fields(value)):
            held = getattr(value, field)
            new = usual if held == SGD() else _replaced(held, usual) if dataclasses.is_dataclass(held) else held
            if new != held:
                value = dataclasses.replace(value, **{field: new})
    return value
