"""Whether the uncertainty tells rows of another kind from test rows."""

from collections.abc import Mapping
from dataclasses import dataclass

from levelhead.beliefs import Beliefs, ClassBeliefs, Predict, Record
from levelhead.detection import detection_scores
from levelhead.predictor import Predictor
from levelhead.scores import as_records
from levelhead.tasks.task import Task

PREFIX = "ood-"


@dataclass(frozen=True)
class OOD:
    """`levelhead.detection.detection_scores` of every set in `task.ood` against `task.test`; one pass over each.

    Also the mean confidence and uncertainties on the set alone. Labels are not read. Stored as `test` and `ood-<set>`.
    """

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`; no records for a task without such sets."""
        if not task.ood:
            return []
        outside = {
            f"{PREFIX}{name}": predict(f"{PREFIX}{name}", split, labelled=False) for name, split in task.ood.items()
        }
        return self.score({"test": predict("test", task.test), **outside})

    def score(self, stored: Mapping[str, Beliefs]) -> list[Record]:
        """See `Evaluation`."""
        found: list[Record] = []
        names = [key for key in stored if key.startswith(PREFIX)]
        if not names or "test" not in stored:
            return found
        inside = stored["test"]
        for key in names:
            outside, data = stored[key], key.removeprefix(PREFIX)
            found += as_records("ood", data, None, detection_scores(inside, outside), len(inside) + len(outside))
            found += as_records("ood", data, None, means(outside), len(outside))
        return found


def means(beliefs: Beliefs) -> dict[str, float]:
    """Mean uncertainties, and confidence where there are classes."""
    found = {name: float(getattr(beliefs, name).double().mean()) for name in ("total", "aleatoric", "epistemic")}
    if isinstance(beliefs, ClassBeliefs):
        found["confidence"] = float(beliefs.log_probs.double().amax(-1).exp().mean())
    return found
