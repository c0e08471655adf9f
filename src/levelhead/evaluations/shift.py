"""What is left of quality and calibration when the test rows change by known, growing amounts (arXiv 1906.02530)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from levelhead.beliefs import Beliefs, Predict, Record, Source, limited, rebatched, stable_seed
from levelhead.catalogue import parts
from levelhead.predictor import Predictor
from levelhead.scores import as_records, scores
from levelhead.tasks.task import Split, Task
from levelhead.types import Batch
from levelhead.values import snake

PREFIX = "shift-"
BLOCK = 250  # rows that share a generator, whatever the batch size


@dataclass(frozen=True)
class Shift:
    """All metrics of `levelhead.scores` on `task.test` under each shift and severity, and on the sets in `task.shifts`.

    shifts      specs of `levelhead.shifts` (or like them); empty means all that suit the task's inputs. One that has
                the name of a set in `task.shifts` gives way to it.
    severities  which of the amounts that a shift lists, counted from 1: for rotation, 3 is its third angle, 45 degrees.
                Amounts that a shift does not have are left out.
    limit       evaluate on that many rows instead of all: drawn once with a fixed seed, so the same for every
                predictor, shift and severity. Standard errors grow accordingly.

    Noise is drawn from generators named by shift, amount and place in the split, so that every predictor sees the same
    pixels at every batch size. Stored as `shift-<name>-<severity>`. Ovadia et al. 2019; Hendrycks and Dietterich 2019.
    """

    shifts: tuple[Any, ...] = ()
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    limit: int | None = None

    def __post_init__(self) -> None:
        named = [snake(type(shift).__name__) for shift in self.shifts]
        if len(set(named)) < len(named):
            raise ValueError(f"Shift: shifts wants different kinds, got {named}; evaluate twice for two of a kind")
        if not self.severities or min(self.severities) < 1 or len(set(self.severities)) < len(self.severities):
            raise ValueError(f"Shift: severities wants different numbers from 1, got {self.severities}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"Shift: limit must be at least 1, or None for all rows, got {self.limit}")

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`; one pass for each shift and severity, and no beliefs held beyond their scores."""
        found = []
        for key, source in self.sources(task):
            found += self.score({key: predict(key, source, remember=False)})
        return found

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """See `Evaluation`."""
        found: list[Record] = []
        for key in stored:
            if key.startswith(PREFIX):
                data, severity = _named(key.removeprefix(PREFIX))
                beliefs = stored[key]
                found += as_records("shift", data, severity, scores(beliefs), len(beliefs))
        return found

    def sources(self, task: Task) -> Iterator[tuple[str, Source]]:
        """The shifted sets by key, nothing computed yet."""
        for name, split in task.shifts.items():
            yield f"{PREFIX}{name}", limited(split, self.limit)
        known = {_named(name)[0] for name in task.shifts}
        test = limited(task.test, self.limit)
        kind = "image" if test.x.ndim == 4 else "tabular"
        for shift in self.shifts or tuple(cls() for cls in parts("shifts")):
            name = snake(type(shift).__name__)
            if shift.kind == kind and name not in known:
                for severity in self.severities:
                    if severity <= len(shift.severities):
                        amount = shift.severities[severity - 1]
                        yield f"{PREFIX}{name}-{severity}", _Shifted(test, shift, name, amount)


@dataclass(frozen=True, eq=False)
class _Shifted:
    """A split whose inputs are shifted as they are read."""

    split: Split
    shift: Any
    name: str
    amount: int

    def ordered(self, size: int) -> Iterator[Batch]:
        """All rows in order."""
        return rebatched(self._blocks(), size)

    def _blocks(self) -> Iterator[Batch]:
        # tables are small, and a shift may measure the features' spread on what it is given: they go in one piece
        block = BLOCK if self.split.x.ndim == 4 else len(self.split)
        for batch in self.split.ordered(block):
            generator = torch.Generator().manual_seed(stable_seed(self.name, self.amount, int(batch.index[0])))
            yield batch._replace(x=self.shift(batch.x, self.amount, generator))


def _named(key: str) -> tuple[str, int | None]:
    """Name and severity of a shifted set: `fog-3` is fog at 3; without a number, the name and None."""
    name, dash, number = key.rpartition("-")
    return (name, int(number)) if dash and number.isdigit() else (key, None)
