"""Whether a predictor says the same of an image that has moved by some pixels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from levelhead.analyses.shift_consistency import PADS, agreement, views
from levelhead.analyses.suited import no_answers, no_images
from levelhead.beliefs import Beliefs, ClassBeliefs
from levelhead.measuring import Predict, Record, limited, rebatched
from levelhead.predictor import Predictor
from levelhead.scores import as_records
from levelhead.tasks.task import Task
from levelhead.types import Batch, Reference

PREFIX = "shift_consistency-"
DATA = "test"


@dataclass(frozen=True)
class ShiftConsistency:
    """The share of pairs of randomly moved views of one test image that get the same answer, and the views' accuracy.

    max_shift  pixels along each axis, either way.
    num_views  of every image, at least 2; all pairs of them are compared.
    pad        how the pixels that come in are made up: "reflect", "circular", "replicate" or "zeros".
    limit      test images, drawn once with a fixed seed, the same for every predictor; None for all.

    The same moves for every predictor. Metrics `consistency`, with its standard error over images, and
    `moved_accuracy`, of the set `test`. Zhang (arXiv 1904.11486), whose views are crops of larger images, which only
    networks of any size can read: `levelhead.analyses.shift_consistency` has them too. Nothing for tables, and where
    images are too small to move. Stored as `shift_consistency-<view>`.
    """

    reference: ClassVar[Reference] = Reference(
        "Zhang", 2019, arxiv="1904.11486", title="Making Convolutional Networks Shift-Invariant Again"
    )
    max_shift: int = 4
    num_views: int = 4
    pad: str = "reflect"
    limit: int | None = 500

    def __post_init__(self) -> None:
        if self.max_shift < 1:
            raise ValueError(f"ShiftConsistency: max_shift must be at least 1, got {self.max_shift}")
        if self.num_views < 2:
            raise ValueError(f"ShiftConsistency: num_views must be at least 2, got {self.num_views}")
        if self.pad not in PADS:
            raise ValueError(f"ShiftConsistency: pad must be one of {', '.join(map(repr, PADS))}; got {self.pad!r}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"ShiftConsistency: limit must be at least 1, or None for all rows, got {self.limit}")

    def why_not(self, predictor: Predictor, task: Task) -> str | None:
        """Why there is nothing to measure, where there is nothing."""
        missing = no_images(task) or no_answers(task)
        if missing is None and min(task.test.input_shape[1:]) <= self.max_shift:
            height, width = task.test.input_shape[1:]
            return f"images of {height} x {width} pixels cannot move by {self.max_shift}"
        return missing

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        if self.why_not(predictor, task) is not None:
            return []
        rows = limited(task.test, self.limit)
        clean = next(rows.ordered(len(rows)))
        moved = views(clean.x, max_shift=self.max_shift, num_views=self.num_views, pad=self.pad)
        found = {}
        for place, x in enumerate(moved, start=1):
            key = f"{PREFIX}{place:03d}"
            found[key] = predict(key, _View(clean._replace(x=x)), remember=False)
        return self.score(found)

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """See `Evaluation`."""
        seen = [stored[key] for key in stored if key.startswith(PREFIX)]
        views_of = [beliefs for beliefs in seen if isinstance(beliefs, ClassBeliefs)]
        if len(views_of) < 2:
            return []
        answers = torch.stack([beliefs.log_probs.argmax(-1) for beliefs in views_of])
        found = agreement(answers)
        accuracy = (answers == views_of[0].y).double().mean()
        values = {"consistency": found.share, "consistency_se": found.error, "moved_accuracy": float(accuracy)}
        return as_records("shift_consistency", DATA, None, values, found.rows)


@dataclass(frozen=True, eq=False)
class _View:
    """All images, moved."""

    batch: Batch

    def ordered(self, size: int) -> Iterator[Batch]:
        """All rows in order."""
        return rebatched(iter([self.batch]), size)
