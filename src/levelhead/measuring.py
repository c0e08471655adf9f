"""What evaluations measure with: the rows they ask a predictor about, the passes that answer, the records they give."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch

from levelhead.beliefs import Beliefs
from levelhead.detectors._fit import Scorer
from levelhead.predictor import Predictor
from levelhead.tasks.task import AnySplit, Task
from levelhead.types import Batch


class Record(NamedTuple):
    """One number of one evaluation: a row of every table.

    evaluation    which suite: clean, shift, ood, cost, ...
    data          the set of rows: test, a shift's name, an out-of-distribution set's name.
    severity      of the shift, 1 to 5; None where there is none.
    metric        what was measured; `<metric>_se` is the standard error of `<metric>` over the choice of rows.
    num_examples  rows behind the number.
    """

    evaluation: str
    data: str
    severity: int | None
    metric: str
    value: float
    num_examples: int


class Source(Protocol):
    """Rows in order, clean, in batches: a split, or one that is shifted on its way."""

    def ordered(self, size: int) -> Iterator[Batch]:
        """All rows in order."""


class Portion(Protocol):
    """Some rows of one or several sets, read once for all of them."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The sets."""

    def batches(self, size: int, device: torch.device) -> Iterator[tuple[str, Batch]]:
        """Batches of at most `size` rows: set by set in the order of `keys`, each set's rows in order."""


class Predict(Protocol):
    """The beliefs about a source, stored under `key` and remembered, so that ten metrics cost one pass."""

    def __call__(
        self,
        key: str,
        source: Source,
        *,
        remember: bool = True,
        labelled: bool = True,
        scorers: Mapping[str, Scorer] | None = None,
    ) -> Beliefs:
        """The beliefs.

        remember  False where nobody will ask again.
        labelled  False where y says nothing (out-of-distribution sets), so that no row is void.
        scorers   fitted detectors by name; their scores are kept with the beliefs, under these names.
        """

    def portions(self, suite: str, about: Any, portions: Sequence[Portion]) -> Iterator[tuple[str, Beliefs]]:
        """The beliefs about every set that occurs in the portions, stored under its key, one set after the other.

        What an earlier call left of this suite is not computed again, if it was `about` the same (plain JSON) and the
        first set of the first portion comes out the same. No more is held than a portion, then one set.
        """


class Evaluation(Protocol):
    """A spec that measures a predictor on a task."""

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """The records, from passes asked of `predict`."""

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """The records that stored beliefs give, without a predictor; none where it measures something else."""


def rebatched(blocks: Iterator[Batch], size: int) -> Iterator[Batch]:
    """The same rows in batches of `size`: what is drawn block by block must not depend on the batch size."""
    held: Batch | None = None
    for block in blocks:
        held = block if held is None else _stacked(held, block)
        while len(held.x) >= size:
            yield _rows(held, slice(size))
            held = _rows(held, slice(size, None))
    if held is not None and len(held.x):
        yield held


def limited(split: AnySplit, limit: int | None) -> AnySplit:
    """As many rows of a split, in order, drawn with a fixed seed: the same for everybody who asks. None: all."""
    if limit is None or limit >= len(split):
        return split
    rows = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:limit]
    return split.take(rows.sort().values)


@contextmanager
def drawing(predictor: Predictor, noise: int | None) -> Iterator[None]:
    """The predictor's draws start at this seed for a while (None: fresh draws); every part gets its own seed back."""
    parts = [part for part in predictor.modules() if isinstance(part, Predictor)]
    held = [(part, vars(part)["noise"]) for part in parts if "noise" in vars(part)]
    try:
        predictor.with_noise(noise)
        yield
    finally:
        for part, seed in held:
            part.noise = seed


def stable_seed(*names: object) -> int:
    """A seed for something that has a name; the same on every machine."""
    text = json.dumps([str(name) for name in names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _stacked(first: Batch, second: Batch) -> Batch:
    x, y, index = (torch.cat(pair) for pair in zip(first[:3], second[:3], strict=True))
    return Batch(x, y, index)


def _rows(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.x[rows], batch.y[rows], batch.index[rows])
