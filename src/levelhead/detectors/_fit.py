"""Fitting detectors: one clean pass over the training rows for all of them, and what comes of it.

Only `task.train` is read, in eval and without augmentation: no out-of-distribution row ever helps.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.detectors._look import Look, Reading, seen
from levelhead.likelihood import Categorical
from levelhead.predictor import Predictor
from levelhead.probe import evaluating
from levelhead.tasks.task import Task
from levelhead.types import Targets

BATCH = 500

Learned = Sequence[Mapping[str, Tensor]]  # what a detector learned of each member; empty where it learns nothing


class Learner(Protocol):
    """What a detector gathers of one member's readings of the training rows, batch by batch, in bounded memory."""

    def add(self, reading: Reading, y: Int[Tensor, " row"]) -> None:
        """Take in some rows: features (row, feature), outputs (row, output), labels (all 0 in regression)."""

    def value(self) -> dict[str, Tensor]:
        """What scoring needs of all rows."""


class Detector:
    """Mixin of all detectors: specs that score rows, higher where more out-of-distribution.

    A spec defines `score`, and `learner` if it learns from training rows.
    """

    def fit(self, predictor: Predictor, task: Task) -> "Scorer":
        """The detector at work on a predictor. Reads task.train alone, and nothing where it has nothing to learn.

        Raises CannotCompose where the predictor does not show what the detector needs.
        """
        return fit((self,), predictor, task)[0]

    def learner(self, num_classes: int) -> Learner | None:
        """A fresh learner for one member, or None for a detector without parameters."""
        return None

    @abstractmethod
    def score(self, look: Look, learned: Learned) -> Float[Tensor, "*batch"]:
        """The score of every row."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """A fitted detector: x -> one score a row (a site, for maps), higher where more out-of-distribution.

    learned  one mapping of tensors a member, as `Detector.learner` made them.
    """

    predictor: Predictor
    detector: Detector
    learned: Learned = ()

    def __call__(self, x: Float[Tensor, "batch *input"] | Look) -> Float[Tensor, "*batch"]:
        """The scores of a batch, or of a look at one, which several scorers may share."""
        look = x if isinstance(x, Look) else Look(self.predictor, x)
        return self.detector.score(look, self.learned)


def fit(detectors: Sequence[Detector], predictor: Predictor, task: Task) -> tuple[Scorer, ...]:
    """All detectors on one predictor, with one pass over task.train, if any has something to learn."""
    num_classes = task.likelihood.num_outputs if isinstance(task.likelihood, Categorical) else 1
    learners: list[list[Learner]] | None = None
    held = chain(predictor.parameters(), predictor.buffers())
    like = next((t for t in held if t.is_floating_point()), torch.empty(0))
    if any(detector.learner(num_classes) is not None for detector in detectors):
        with torch.no_grad(), evaluating(predictor):
            for batch in task.train.ordered(BATCH):
                moved = batch.to(like.device, like.dtype)
                readings = seen(Look(predictor, moved.x).readings, wanted_by=_names(detectors, num_classes))
                if learners is None:
                    learners = [_learners(detector, num_classes, len(readings)) for detector in detectors]
                for member, reading in enumerate(readings):
                    rows, y = _rows(reading, moved.y, task)
                    for own in learners:
                        if own:
                            own[member].add(rows, y)
    learned = [()] * len(detectors) if learners is None else [tuple(one.value() for one in own) for own in learners]
    return tuple(Scorer(predictor, detector, values) for detector, values in zip(detectors, learned, strict=True))


def _learners(detector: Detector, num_classes: int, members: int) -> list[Learner]:
    made = [detector.learner(num_classes) for _ in range(members)]
    return [learner for learner in made if learner is not None]


def _names(detectors: Sequence[Detector], num_classes: int) -> str:
    return " and ".join(f"{type(one).__name__}()" for one in detectors if one.learner(num_classes) is not None)


def _rows(reading: Reading, y: Targets, task: Task) -> tuple[Reading, Int[Tensor, " row"]]:
    """Rows and sites in one axis, the void ones dropped; soft labels become their most likely class."""
    features, outputs = reading.features.flatten(0, -2), reading.outputs.flatten(0, -2)
    if not isinstance(task.likelihood, Categorical):
        return Reading(features, outputs, reading.head), torch.zeros(len(features), dtype=torch.long, device=y.device)
    labels = (y.argmax(-1) if y.is_floating_point() else y).flatten()
    if task.likelihood.void is not None:
        kept = labels != task.likelihood.void
        features, outputs, labels = features[kept], outputs[kept], labels[kept]
    return Reading(features, outputs, reading.head), labels
