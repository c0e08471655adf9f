"""How good and how calibrated a predictor is on the test rows as they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from levelhead.beliefs import Beliefs, Predict, Record
from levelhead.predictor import Predictor
from levelhead.scores import as_records, scores
from levelhead.tasks.task import Task


@dataclass(frozen=True)
class Clean:
    """All metrics of `levelhead.scores` on `task.test`, from one pass. Stored as `test`."""

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`."""
        return self.score({"test": predict("test", task.test)})

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """See `Evaluation`."""
        if "test" not in stored:
            return []
        beliefs = stored["test"]
        return as_records("clean", "test", None, scores(beliefs), len(beliefs))
