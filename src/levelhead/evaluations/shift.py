"""What is left of quality and calibration when the test rows change by known, growing amounts (arXiv 1906.02530)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch

from levelhead.beliefs import Beliefs
from levelhead.catalogue import names, parts
from levelhead.measuring import Portion, Predict, Record, limited, stable_seed
from levelhead.predictor import Predictor
from levelhead.scores import as_records, scores
from levelhead.shifts._tabular import TableShift
from levelhead.tasks.split import Split, as_float
from levelhead.tasks.stored import StoredSplit
from levelhead.tasks.task import Task
from levelhead.types import Batch
from levelhead.values import snake

PREFIX = "shift-"
TEST = ("noise", "blur", "weather", "digital")  # the groups of the fifteen corruptions of CIFAR-10-C's test set
CORRUPTIONS = (*TEST, "extra")
BLOCK = 250  # images that share a generator, whatever the batch size


@dataclass(frozen=True)
class Shift:
    """All metrics of `levelhead.scores` on `task.test` under each shift and severity, and on the sets in `task.shifts`.

    shifts      specs of `levelhead.shifts` (or like them), and names of groups of them: noise, blur, weather, digital,
                extra, geometric, frequency, colour, tabular; corruptions are the first five, all is everything. Empty
                means the fifteen corruptions of the test set (noise, blur, weather, digital) for images, and tabular
                for tables. Those that do not suit the inputs are left out. A shift that has the name of a set in
                `task.shifts` gives way to it; with `shifts`, stored sets of shifts that are not among them are left
                out, too.
    severities  which of the amounts that a shift lists, counted from 1: for rotation, 3 is its third angle, 45 degrees.
                Amounts that a shift does not have are left out. None: all of them.
    limit       evaluate on that many rows instead of all: drawn once with a fixed seed, so the same for every
                predictor, shift and severity. Standard errors grow accordingly.

    Noise is drawn from generators named by shift, amount and place in the split, so that every predictor sees the same
    pixels at every batch size. A block of clean rows is read once, for all shifts and severities; what one block gave
    is put away before the next, so that memory holds a block's inputs, its beliefs under every shift, and later one
    shift's beliefs about all rows. A killed evaluation with a folder to keep things goes on with the next block.
    Stored as `shift-<name>-<severity>`. Ovadia et al. 2019; Hendrycks and Dietterich 2019.
    """

    words: ClassVar = (*CORRUPTIONS, "geometric", "frequency", "colour", "tabular", "corruptions", "all")

    shifts: tuple[Any, ...] | str = ()
    severities: tuple[int, ...] | None = (1, 2, 3, 4, 5)
    limit: int | None = None

    def __post_init__(self) -> None:
        unknown = [item for item in self._items() if isinstance(item, str) and item not in self.words]
        if unknown:
            raise ValueError(f"Shift: shifts wants specs, or groups ({', '.join(self.words)}); got {unknown[0]!r}")
        specs = [item for item in self._items() if not isinstance(item, str)]
        if any(spec in specs[:place] for place, spec in enumerate(specs)):
            raise ValueError(f"Shift: shifts wants different ones, got {specs}")
        counts = self.severities
        if counts is not None and (not counts or min(counts) < 1 or len(set(counts)) < len(counts)):
            raise ValueError(f"Shift: severities wants different numbers from 1, or None for all; got {counts}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"Shift: limit must be at least 1, or None for all rows, got {self.limit}")

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`; no records where no shift suits the inputs."""
        stored, computed = self.stored(task), self.computed(task)
        if not stored and not computed:
            return []
        about = {"task": task.digest, "limit": self.limit, "sets": [*stored, *map(repr, computed.values())]}
        found: list[Record] = []
        for key, beliefs in predict.portions("shift", about, self.portions(task)):
            found += self.score({key: beliefs})
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

    def stored(self, task: Task) -> dict[str, Split | StoredSplit]:
        """The sets in `task.shifts` that are asked for, by key."""
        chosen = {snake(type(shift).__name__) for shift in self._specs("image") + self._specs("tabular")}
        found: dict[str, Split | StoredSplit] = {}
        for name, split in task.shifts.items():
            data, severity = _named(name)
            left_out = self.shifts and data not in chosen and data in names("shifts")
            if not left_out and (severity is None or self.severities is None or severity in self.severities):
                found[f"{PREFIX}{name}"] = split
        return found

    def computed(self, task: Task) -> dict[str, "_Amount"]:
        """The shifts that are computed, by key; nothing computed yet."""
        known = {_named(name)[0] for name in task.shifts}
        specs = self._specs("image" if task.test.x.ndim == 4 else "tabular")
        found = {}
        for spec in specs:
            kind = snake(type(spec).__name__)
            alone = sum(type(other) is type(spec) for other in specs) == 1
            settings = "" if alone else _settings(spec)
            name = f"{kind}({settings})" if settings else kind
            if kind not in known:
                shift = spec.measured(task.train.x.float()) if isinstance(spec, TableShift) else spec
                for number, amount in enumerate(spec.severities, start=1):
                    if self.severities is None or number in self.severities:
                        found[f"{PREFIX}{name}-{number}"] = _Amount(shift, name, amount)
        return found

    def portions(self, task: Task) -> list[Portion]:
        """Each stored set, then each block of clean rows under all the computed shifts."""
        found: list[Portion] = [_Whole(key, limited(split, self.limit)) for key, split in self.stored(task).items()]
        amounts = self.computed(task)
        if amounts:
            test = limited(task.test, self.limit)
            # tables are small, and a shift may measure the features' spread on what it is given: they go in one piece
            rows = BLOCK if test.x.ndim == 4 else len(test)
            found += [_Block(test, start, rows, amounts) for start in range(0, len(test), rows)]
        return found

    def _items(self) -> tuple[Any, ...]:
        return (self.shifts,) if isinstance(self.shifts, str) else self.shifts

    def _specs(self, kind: str) -> list[Any]:
        """The shifts of that kind, groups spelled out, each once."""
        found: list[Any] = []
        for item in self._items() or (*TEST, "tabular"):
            wanted = {"all": self.words, "corruptions": CORRUPTIONS}.get(item, (item,)) if isinstance(item, str) else ()
            known: list[Any] = [cls() for cls in parts("shifts")]
            members = [spec for spec in known if spec.group in wanted] if wanted else [item]
            found += [spec for spec in members if spec.kind == kind and spec not in found]
        return found


@dataclass(frozen=True)
class _Amount:
    """A shift at one of its amounts; `name` names its draws."""

    shift: Any
    name: str
    amount: int

    def __call__(self, batch: Batch) -> Batch:
        generator = torch.Generator().manual_seed(stable_seed(self.name, self.amount, int(batch.index[0])))
        return batch._replace(x=self.shift(batch.x, self.amount, generator))


@dataclass(frozen=True, eq=False)
class _Block:
    """Some clean rows, under every shift and amount."""

    split: Split
    start: int
    rows: int
    amounts: Mapping[str, _Amount]

    @property
    def keys(self) -> tuple[str, ...]:
        """The shifted sets."""
        return tuple(self.amounts)

    def batches(self, size: int, device: torch.device) -> Iterator[tuple[str, Batch]]:
        """See `Portion`; the clean rows are read once."""
        stop = min(self.start + self.rows, len(self.split))
        rows = slice(self.start, stop)
        clean = Batch(as_float(self.split.x[rows]), self.split.y[rows], torch.arange(self.start, stop)).to(device)
        for key, amount in self.amounts.items():
            shifted = amount(clean)
            for at in range(0, len(shifted.x), size):
                some = slice(at, at + size)
                yield key, Batch(shifted.x[some], shifted.y[some], shifted.index[some])


@dataclass(frozen=True, eq=False)
class _Whole:
    """A stored set."""

    key: str
    split: Split | StoredSplit

    @property
    def keys(self) -> tuple[str, ...]:
        """The set."""
        return (self.key,)

    def batches(self, size: int, device: torch.device) -> Iterator[tuple[str, Batch]]:
        """See `Portion`."""
        for batch in self.split.ordered(size):
            yield self.key, batch.to(device)


def _settings(spec: Any) -> str:
    """The fields of a spec that tell it from its default: `frequency=0.1`."""
    default = type(spec)()
    own = {f.name: getattr(spec, f.name) for f in fields(spec) if getattr(spec, f.name) != getattr(default, f.name)}
    return ", ".join(f"{name}={value}" for name, value in own.items())


def _named(key: str) -> tuple[str, int | None]:
    """Name and severity of a shifted set: `fog-3` is fog at 3; without a number, the name and None."""
    name, dash, number = key.rpartition("-")
    return (name, int(number)) if dash and number.isdigit() else (key, None)
