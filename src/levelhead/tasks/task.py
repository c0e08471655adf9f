"""A task: honest splits of one data set, what its targets mean, and where else a predictor is put to the proof.

Four splits with four uses. Parameters are fitted on `train`; choices (early stopping, hyper-parameters) are made on
`val`; post-hoc steps are fitted on `calibration`; `test` is looked at once, by evaluations. They share no row, and
while something is fitted the test rows are sealed.
"""

import copy
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NoReturn, TypeVar

import torch

from levelhead.likelihood import Categorical, Likelihood, Signature
from levelhead.tasks.augment import Augment
from levelhead.tasks.carve import dealt
from levelhead.tasks.measure import moments
from levelhead.tasks.split import Split
from levelhead.tasks.stored import StoredSplit
from levelhead.types import LevelheadError

__all__ = ["Split", "Task", "TestDataLeak"]

AnySplit = TypeVar("AnySplit", Split, StoredSplit, Split | StoredSplit)

DISJOINT = ("train", "val", "calibration", "test")


class TestDataLeak(LevelheadError, ValueError):
    """Test rows were about to help a fit: they are in another split too, or a part that fits has asked for them."""

    __test__ = False  # not a test, for all its name


@dataclass(frozen=True, eq=False, repr=False)
class Task:
    """Splits, likelihood and augmentation of one data set.

    unlabelled      rows whose labels are not to be read, for semi-supervised terms.
    shifts          stored shifted test sets by name (shifts that are computed belong to evaluations). A number behind
                    a dash is a severity: `fog-3`.
    ood             sets by name that hold none of the classes.
    augment         how training batches are augmented, or None.
    classes         names of the classes, in the order of the labels; empty where they have none.
    columns         names of a table's features, in their order; empty where they have none.
    args            what the loader was called with, as plain values, for the receipt.
    known_overlaps  True where published splits share rows: the receipt counts them, instead of an error.

    Raises TestDataLeak when two of train, val, calibration and test share a row (by content), and ValueError when
    splits do not fit together or labels are none of the likelihood's.
    """

    name: str
    train: Split
    val: Split
    calibration: Split
    test: Split
    likelihood: Likelihood
    unlabelled: Split | None = None
    shifts: Mapping[str, Split | StoredSplit] = field(default_factory=dict)
    ood: Mapping[str, Split] = field(default_factory=dict)
    augment: Augment | None = None
    classes: tuple[str, ...] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    known_overlaps: bool = False
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_labels()
        if self.augment is not None and self.train.x.ndim != 4:
            raise ValueError(
                f"Task {self.name!r}: augment moves pixels, but inputs have shape {tuple(self.train.x.shape[1:])}; "
                "write augment=None"
            )
        if not self.known_overlaps and self.overlaps:
            pair, count = next(iter(self.overlaps.items()))
            first, second = pair.split("/")
            raise TestDataLeak(
                f"Task {self.name!r}: {count} rows of {second} are in {first} too (the same x and y), so {second} "
                f"would not measure what was not seen. Remove them from {first}; or, where the splits were published "
                "like that, say known_overlaps=True and the receipt will count them."
            )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {record['size']}" for name, record in self._receipt["splits"].items())
        return f"{type(self).__name__}({self.name!r}, {sizes}, {self.likelihood})"

    @cached_property
    def overlaps(self) -> dict[str, int]:
        """By "first/second", how many rows of the second have an equal in the first; only where there are some."""
        found = {}
        for first, second in itertools.combinations(DISJOINT, 2):
            seen = set(getattr(self, first).row_hashes)
            shared = sum(row in seen for row in getattr(self, second).row_hashes)
            if shared:
                found[f"{first}/{second}"] = shared
        return found

    @cached_property
    def signature(self) -> Signature:
        """What a network must fit; mean and std are measured on train."""
        mean, std = moments(self.train.x)
        return Signature(tuple(self.train.x.shape[1:]), self.likelihood.num_outputs, self.likelihood, mean, std)

    def receipt(self) -> dict[str, Any]:
        """What exactly the data was, as plain JSON: size and digest of each split, overlaps, augmentation."""
        return copy.deepcopy(self._receipt)

    @property
    def num_train(self) -> int:
        """Rows of the training split; of a dry run's task, those that the fit itself will have."""
        return int(self._receipt["splits"]["train"]["size"])

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the receipt: tasks with equal digests are the same task."""
        text = json.dumps(self._receipt, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def sealed(self) -> "Task":
        """The same task, but reading test, shifts or ood raises TestDataLeak: what `fit` hands to its parts."""
        kept = {"_receipt": self._receipt, **vars(self)}  # the receipt is of digests, and may be read
        clone = object.__new__(SealedTask)
        vars(clone).update({name: value for name, value in kept.items() if name not in SEALED})
        return clone

    def to(self, device: torch.device | str) -> "Task":
        """The same task on `device`."""
        return self._with_splits(lambda split: split.to(device))

    def dry(self, size: int = 8) -> "Task":
        """A task of `size` rows a split, of all classes if it can be, for a dry run; signature and receipt stay."""
        known = {"signature": self.signature, "_receipt": self._receipt}
        tiny = self._with_splits(lambda split: few(split, size))
        vars(tiny).update(known)
        return tiny

    def shared_calibration(self, seed: int = 0) -> tuple["Task", "Task"]:
        """Two copies, each with one half of the calibration rows: for what fits, and for what promises coverage.

        Drawn with `seed`, labels in the proportions of the whole; signature and receipt stay. Raises ValueError for a
        single row.
        """
        rows = self.calibration
        if len(rows) < 2:
            raise ValueError(f"Task {self.name!r}: one calibration row cannot be shared out; hold out more")
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        if rows.y.dtype == torch.int64 and rows.y.ndim == 1:
            order = dealt(order, rows.y.cpu()[order])
        known = {"signature": self.signature, "_receipt": self._receipt}
        halves = []
        for part in order.tensor_split(2):
            clone = copy.copy(self)
            vars(clone).update(known, calibration=rows.take(part.sort().values))
            halves.append(clone)
        return halves[0], halves[1]

    @cached_property
    def _receipt(self) -> dict[str, Any]:
        splits = {name: getattr(self, name) for name in (*DISJOINT, "unlabelled") if getattr(self, name) is not None}
        return {
            "name": self.name,
            "args": dict(self.args),
            "splits": {name: entry(split) for name, split in splits.items()},
            "shifts": {name: entry(split) for name, split in self.shifts.items()},
            "ood": {name: entry(split) for name, split in self.ood.items()},
            "overlaps": dict(self.overlaps),
            "augment": None if self.augment is None else asdict(self.augment),
        }

    def _with_splits(self, change: Callable[[Any], Any]) -> "Task":
        """A copy whose splits are changed; it skips the checks, because its rows are rows of this task."""
        clone = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Split):
                vars(clone)[name] = change(value)
            elif name in ("shifts", "ood"):
                vars(clone)[name] = {key: change(split) for key, split in value.items()}
        return clone

    def _check_shapes(self) -> None:
        expected = self.train.x.shape[1:]
        if self.columns and (len(self.columns),) != tuple(expected):
            raise ValueError(
                f"Task {self.name!r}: {len(self.columns)} columns are named, and inputs have shape {tuple(expected)}"
            )
        others = [getattr(self, name) for name in DISJOINT[1:]]
        others += [self.unlabelled] if self.unlabelled is not None else []
        for split in (*others, *self.shifts.values(), *self.ood.values()):
            if split.input_shape != tuple(expected):
                raise ValueError(
                    f"Task {self.name!r}: inputs of {split.name} have shape {split.input_shape}, those of train "
                    f"{tuple(expected)}; wants one shape"
                )

    def _check_labels(self) -> None:
        if not isinstance(self.likelihood, Categorical):
            return
        num_classes, void = self.likelihood.num_classes, self.likelihood.void
        if self.classes and len(self.classes) != num_classes:
            raise ValueError(f"Task {self.name!r}: {len(self.classes)} names for {num_classes} classes")
        for name in DISJOINT:
            y = getattr(self, name).y
            if y.is_floating_point():
                if y.shape[-1] != num_classes:
                    raise ValueError(
                        f"Task {self.name!r}: y of {name} is float of shape {tuple(y.shape)}; wants int64 labels, or "
                        f"soft labels with {num_classes} classes, or a Gaussian likelihood"
                    )
                continue
            wrong = (y < 0) | (y >= num_classes)
            if void is not None:
                wrong &= y != void
            if bool(wrong.any()):
                raise ValueError(
                    f"Task {self.name!r}: {name} holds label {int(y[wrong][0])}; wants 0 to {num_classes - 1}"
                )
        for name, split in self.shifts.items():
            if isinstance(split, StoredSplit) and not 0 <= int(split.y.min()) <= int(split.y.max()) < num_classes:
                strange = int(split.y.max() if split.y.min() >= 0 else split.y.min())
                raise ValueError(f"Task {self.name!r}: {name} holds label {strange}; wants 0 to {num_classes - 1}")


SEALED = {
    "test": "Choose and stop early on `val`; fit post-hoc steps on `calibration`.",
    "shifts": "Shifted sets are for evaluations; robustness is to be learned from `train` and chosen on `val`.",
    "ood": "Out-of-distribution sets are for evaluations; fit thresholds and densities on `calibration`.",
}


class SealedTask(Task):
    """A task without its test rows: they are not in it, so no part can read them by another way."""

    @property
    def test(self) -> NoReturn:
        """Raises TestDataLeak."""
        raise sealed(self, "test")

    @property
    def shifts(self) -> NoReturn:
        """Raises TestDataLeak."""
        raise sealed(self, "shifts")

    @property
    def ood(self) -> NoReturn:
        """Raises TestDataLeak."""
        raise sealed(self, "ood")

    def sealed(self) -> Task:
        """Itself."""
        return self


def sealed(task: Task, name: str) -> TestDataLeak:
    """The error of reading a sealed part of a task."""
    return TestDataLeak(f"task.{name} of {task.name!r} was read while something is being fitted. {SEALED[name]}")


def few(split: AnySplit, size: int) -> AnySplit:
    """At most `size` rows of a split, of as many classes as possible."""
    places = torch.arange(len(split))
    if split.y.dtype == torch.int64 and split.y.ndim == 1:
        places = dealt(places, split.y.cpu())
    return split.take(places[:size])


def entry(split: Split | StoredSplit) -> dict[str, Any]:
    """A split's line in the receipt."""
    return {"size": len(split), "digest": split.digest}
