"""Evaluating a predictor: suites by name or value, one pass over each set of rows, records or a table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import torch

from levelhead.beliefs import Beliefs, Stored, join, of_batch, write
from levelhead.catalogue import find
from levelhead.detectors._fit import Scorer
from levelhead.detectors._look import Look
from levelhead.measuring import Evaluation, Portion, Record, Source, drawing
from levelhead.predictor import Predictor
from levelhead.probe import evaluating
from levelhead.shelf import Shelf, alike
from levelhead.tasks.task import Task
from levelhead.types import Batch, require

SUITES = ("clean", "shift", "ood", "cost")
SCORED = ("clean", "shift", "ood")
CPU_BATCH = 100  # stays in the cache: 1.6 times as fast as 500 for ResNet-8 on 28 x 28 images
DEVICE_BATCH = 1000

Watch = Callable[[str, int, int], None]  # told a suite, its portions that are done, and how many there are


def evaluate(
    predictor: Predictor,
    task: Task,
    suites: Sequence[str | Evaluation] = SUITES,
    *,
    batch_size: int | None = None,
    keep: str | Path | None = None,
    noise: int = 0,
    watch: Watch | None = None,
) -> Any:
    """The records of `records` as a pandas table, one row each, with the columns of `Record`.

    Raises MissingExtra without pandas (extra `study`); `records` needs nothing.
    """
    pandas = require("pandas", extra="study")
    found = records(predictor, task, suites, batch_size=batch_size, keep=keep, noise=noise, watch=watch)
    table = pandas.DataFrame(found, columns=list(Record._fields))
    return table.astype({"severity": "Int64"})  # whole numbers, some absent


def records(
    predictor: Predictor,
    task: Task,
    suites: Sequence[str | Evaluation] = SUITES,
    *,
    batch_size: int | None = None,
    keep: str | Path | None = None,
    noise: int = 0,
    watch: Watch | None = None,
) -> list[Record]:
    """What the suites measure, in their order.

    suites      names of `levelhead.evaluations`, or its specs: `("clean", Shift(severities=(1, 3, 5), limit=1000))`.
    batch_size  rows a forward pass; None is 100 on the CPU, 1000 elsewhere. Deterministic predictors give the same
                numbers whatever it is.
    keep        folder that gets the beliefs behind the records, as `predictions/<key>.safetensors`, for `rescore`.
                The same call after a kill goes on with what a long suite (shift) had done.
    noise       seed of the draws of a stochastic predictor meanwhile; it gets its own seed back, and its mode.
    watch       told (suite, portions done, all portions) as a long suite goes on.

    Raises ValueError for unknown suites, and for two suites that measure the same thing.
    """
    specs = [_spec(suite) for suite in suites]
    folder = None if keep is None else Path(keep)
    passes = Passes(predictor, task, batch_size=batch_size, keep=folder, watch=watch)
    with evaluating(predictor), drawing(predictor, noise):
        found = _unique([record for spec in specs for record in spec(predictor, task, passes)])
    passes.close()
    return found


def rescore(folder: str | Path, suites: Sequence[str | Evaluation] = SCORED) -> list[Record]:
    """The records that stored beliefs give, without a predictor: `folder` is what `records` was given as `keep`.

    Suites that measure something else (cost) give none. Raises FileNotFoundError where nothing is stored.
    """
    stored = Stored(folder)
    return _unique([record for suite in suites for record in _spec(suite).score(stored)])


class Passes:
    """Forward passes of one predictor over sources: each once, remembered, and stored where asked."""

    def __init__(
        self,
        predictor: Predictor,
        task: Task,
        *,
        batch_size: int | None = None,
        keep: Path | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.predictor = predictor
        self.void = task.likelihood.void
        self.like = next(floats(predictor), torch.empty(0))
        self.batch_size = batch_size or (CPU_BATCH if self.like.device.type == "cpu" else DEVICE_BATCH)
        self.keep = keep
        self.watch = watch
        self._shelves: list[Shelf] = []
        self._known: dict[str, Beliefs] = {}

    def __call__(
        self,
        key: str,
        source: Source,
        *,
        remember: bool = True,
        labelled: bool = True,
        scorers: Mapping[str, Scorer] | None = None,
    ) -> Beliefs:
        """See `Predict`."""
        wanted = scorers or {}
        if key in self._known and wanted.keys() <= self._known[key].detectors.keys():
            return self._known[key]
        beliefs = join(
            [self._of(batch, labelled=labelled, scorers=wanted) for batch in source.ordered(self.batch_size)]
        )
        if remember:
            self._known[key] = beliefs
        if self.keep is not None:
            write(beliefs, key, self.keep)
        return beliefs

    def portions(self, suite: str, about: Any, portions: Sequence[Portion]) -> Iterator[tuple[str, Beliefs]]:
        """See `Predict`. Without `keep`, portions wait in a temporary folder."""
        shelf = Shelf(self.keep, suite, about, len(portions))
        self._shelves.append(shelf)
        try:
            if 0 in shelf and not self._same(shelf, portions[0]):
                shelf.empty()
            done = shelf.done
            for number, portion in enumerate(portions):
                if number not in shelf:
                    shelf.put(number, self._beliefs(portion))
                    done += 1
                if self.watch is not None:
                    self.watch(suite, done, shelf.count)
            for key, numbers in _where(portions).items():
                beliefs = shelf.joined(key, numbers)
                if self.keep is not None:
                    write(beliefs, key, self.keep)
                yield key, beliefs
        finally:
            if shelf.temporary:
                shelf.clear()

    def close(self) -> None:
        """Delete the portions, now that everything is measured."""
        for shelf in self._shelves:
            shelf.clear()
        self._shelves.clear()

    def _of(self, batch: Batch, *, labelled: bool = True, scorers: Mapping[str, Scorer] | None = None) -> Beliefs:
        moved = batch.to(self.like.device, self.like.dtype)
        with torch.no_grad():
            look = Look(self.predictor, moved.x)
            found = {name: scorer(look) for name, scorer in (scorers or {}).items()}
            return of_batch(look.belief, moved, void=self.void if labelled else None, detectors=found)

    def _beliefs(self, portion: Portion) -> dict[str, Beliefs]:
        parts: dict[str, list[Beliefs]] = {}
        for key, batch in portion.batches(self.batch_size, self.like.device):
            parts.setdefault(key, []).append(self._of(batch))
        return {key: join(found) for key, found in parts.items()}

    def _same(self, shelf: Shelf, portion: Portion) -> bool:
        """Whether the first set of a stored portion comes out as it is stored: the predictor may be another one."""
        key = portion.keys[0]
        batches = takewhile(lambda pair: pair[0] == key, portion.batches(self.batch_size, self.like.device))
        return alike(join([self._of(batch) for _, batch in batches]), shelf.get(0, key))


def floats(predictor: Predictor) -> Iterator[torch.Tensor]:
    """The floating tensors of a predictor: they say where it lives and in which precision."""
    return (t for t in chain(predictor.parameters(), predictor.buffers()) if t.is_floating_point())


def _where(portions: Sequence[Portion]) -> dict[str, list[int]]:
    """For every set, the portions that hold some of its rows."""
    numbers: dict[str, list[int]] = {}
    for number, portion in enumerate(portions):
        for key in portion.keys:
            numbers.setdefault(key, []).append(number)
    return numbers


def _spec(suite: str | Evaluation) -> Evaluation:
    if not isinstance(suite, str):
        return suite
    found: Evaluation = find(suite, ("evaluations",))()
    return found


def _unique(found: list[Record]) -> list[Record]:
    seen = set()
    for record in found:
        name = record[:4]
        if name in seen:
            raise ValueError(f"suites: two of them measure {name}; give each suite once")
        seen.add(name)
    return found
