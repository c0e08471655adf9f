"""How good and how calibrated a predictor is on the test rows as they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from levelhead.all_scores import all_scores
from levelhead.beliefs import Beliefs, Predict, Record
from levelhead.predictor import Predictor
from levelhead.scores import as_records, scores
from levelhead.tasks.task import Task


@dataclass(frozen=True)
class Clean:
    """All metrics of `levelhead.scores` on `task.test`, from one pass. Stored as `test`.

    metrics  "usual", or "all", which adds what few ask for: `levelhead.all_scores`.
    """

    metrics: str = "usual"

    def __post_init__(self) -> None:
        if self.metrics not in ("usual", "all"):
            raise ValueError(f"Clean: metrics must be 'usual' or 'all', got {self.metrics!r}")

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        return self.score({"test": predict("test", task.test)})

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """See `Evaluation`."""
        if "test" not in stored:
            return []
        beliefs = stored["test"]
        measure = all_scores if self.metrics == "all" else scores
        return as_records("clean", "test", None, measure(beliefs), len(beliefs))
