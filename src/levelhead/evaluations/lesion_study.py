"""What a trained network is worth without each of its units in turn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from levelhead.analyses.lesion import MODES, units, without
from levelhead.analyses.suited import images, no_answers, no_images
from levelhead.beliefs import Beliefs, ClassBeliefs
from levelhead.measuring import Predict, Record, limited
from levelhead.metrics.classification import nll
from levelhead.predictor import Predictor
from levelhead.scores import as_records
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose, Reference

PREFIX = "lesion_study-"
WHOLE = "whole"


@dataclass(frozen=True)
class LesionStudy:
    """Accuracy and NLL with one unit of the trained network taken out, without training on; for each unit.

    mode   "branch": zero is left of a residual branch. "identity": a convolution that keeps size and channels returns
           what it was given. Of several networks the units of one name are taken out together.
    limit  test images, drawn once with a fixed seed, the same for every predictor; None for all.

    Blocks that change the size of the map have no identity shortcut and are left out. The records of a unit have
    `<kind> <name>` as data and its place in depth (from 1) as severity: metrics `accuracy`, `accuracy_change` with its
    standard error over images, and `nll`; those of the set `whole` are the untouched network's. Park & Kim (arXiv
    2202.06709). Nothing where no unit can be taken out. Stored as `lesion_study-<place>-<data>`.
    """

    reference: ClassVar[Reference] = Reference(
        "Park and Kim", 2022, arxiv="2202.06709", title="How Do Vision Transformers Work?"
    )
    mode: str = "branch"
    limit: int | None = 500

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"LesionStudy: mode must be one of {', '.join(map(repr, MODES))}; got {self.mode!r}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"LesionStudy: limit must be at least 1, or None for all rows, got {self.limit}")

    def why_not(self, predictor: Predictor, task: Task) -> str | None:
        """Why there is nothing to measure, where there is nothing."""
        missing = no_images(task) or no_answers(task)
        if missing is not None:
            return missing
        try:
            units(predictor, images(predictor, limited(task.test, 2)), mode=self.mode)
        except CannotCompose as error:
            return str(error)
        return None

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        if self.why_not(predictor, task) is not None:
            return []
        rows = limited(task.test, self.limit)
        chosen, _ = units(predictor, images(predictor, limited(task.test, 2)), mode=self.mode)
        found = {f"{PREFIX}000-{WHOLE}": predict(f"{PREFIX}000-{WHOLE}", rows)}
        for place, unit in enumerate(chosen, start=1):
            key = f"{PREFIX}{place:03d}-{unit.kind} {unit.name}"
            with without(predictor, unit):
                found[key] = predict(key, rows, remember=False)
        return self.score(found)

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """See `Evaluation`."""
        found: list[Record] = []
        whole = stored.get(f"{PREFIX}000-{WHOLE}")
        if not isinstance(whole, ClassBeliefs):
            return found
        before = whole.correct
        for key in stored:
            if not key.startswith(PREFIX):
                continue
            beliefs = stored[key]
            assert isinstance(beliefs, ClassBeliefs), "why_not refuses everything else"
            place, _, data = key.removeprefix(PREFIX).partition("-")
            after, rows = beliefs.correct, len(beliefs)
            values = {"accuracy": float(after.mean()), "nll": float(nll(beliefs.log_probs.double(), beliefs.y))}
            if data != WHOLE:
                values["accuracy_change"] = float((after - before).mean())
                values["accuracy_change_se"] = float((after - before).std()) / rows**0.5
            found += as_records("lesion_study", data, int(place) or None, values, rows)
        return found
