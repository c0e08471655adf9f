"""Whether the uncertainty, and detectors fitted on the training rows, tell rows of another kind from test rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from levelhead.beliefs import Beliefs, ClassBeliefs
from levelhead.catalogue import family_of, name_of, parts
from levelhead.detection import detection_scores
from levelhead.detectors._fit import Detector, Scorer, fit
from levelhead.measuring import Predict, Record
from levelhead.predictor import Predictor
from levelhead.scores import as_records
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose
from levelhead.values import snake

PREFIX = "ood-"
ALL = "all"
FEW = 8  # rows on which "all" finds out which detectors a predictor can take


@dataclass(frozen=True)
class OOD:
    """`levelhead.detection.detection_scores` of every set in `task.ood` against `task.test`; one pass over each.

    detectors  specs of `levelhead.detectors` (or like them), beside what the beliefs themselves hold: confidence,
               total, epistemic, and density where modelled. They are fitted on task.train, in one pass over it for all
               of them. "all": every one that the predictor can take.

    Higher scores mean more out-of-distribution, whatever the detector; its metrics are `<measure>_<detector>`. Sets
    whose name begins with `near-` are near (other classes of the same kind of data), the others far. Also the mean
    confidence and uncertainties on the set alone. Labels of the outer sets are not read. Stored with all scores as
    `test` and `ood-<set>`.
    """

    detectors: tuple[Any, ...] | str = ()

    def __post_init__(self) -> None:
        if isinstance(self.detectors, str):
            if self.detectors != ALL:
                raise ValueError(f"OOD: detectors wants specs, or {ALL!r} for every one, got {self.detectors!r}")
            return
        names = [named(spec) for spec in self.detectors]
        if len(set(names)) < len(names):
            raise ValueError(f"OOD: detectors wants different kinds, got {names}; evaluate twice for two of a kind")

    def __call__(self, predictor: Predictor, task: Task, predict: Predict) -> list[Record]:
        """See `Evaluation`; no records for a task without such sets."""
        if not task.ood:
            return []
        scorers = self.scorers(predictor, task)
        outside = {
            f"{PREFIX}{name}": predict(f"{PREFIX}{name}", split, labelled=False, scorers=scorers)
            for name, split in task.ood.items()
        }
        return self.score({"test": predict("test", task.test, scorers=scorers), **outside})

    def scorers(self, predictor: Predictor, task: Task) -> dict[str, Scorer]:
        """The fitted detectors by name; what fits them sees no test row."""
        known = task.sealed()
        chosen = suited(predictor, known) if isinstance(self.detectors, str) else self.detectors
        return {named(spec): scorer for spec, scorer in zip(chosen, fit(chosen, predictor, known), strict=True)}

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


def named(spec: Any) -> str:
    """The name of a detector in metrics: its file's, or its class's where it is nobody's part."""
    return name_of(type(spec)) if family_of(type(spec)) else snake(type(spec).__name__)


@torch.no_grad()
def suited(predictor: Predictor, task: Task) -> tuple[Detector, ...]:
    """Every detector with its defaults that this predictor can take: those that say CannotCompose are left out."""
    tiny = task.dry(FEW)
    like = next((t for t in predictor.parameters() if t.is_floating_point()), torch.empty(0))
    batch = next(tiny.train.ordered(FEW)).to(like.device, like.dtype)
    found: list[Detector] = []
    for cls in parts("detectors"):
        spec: Detector = cls()
        try:
            spec.fit(predictor, tiny)(batch.x)
        except CannotCompose:
            continue
        found.append(spec)
    return tuple(found)


def means(beliefs: Beliefs) -> dict[str, float]:
    """Mean uncertainties, and confidence where there are classes."""
    found = {name: float(getattr(beliefs, name).double().mean()) for name in ("total", "aleatoric", "epistemic")}
    if isinstance(beliefs, ClassBeliefs):
        found["confidence"] = float(beliefs.log_probs.double().amax(-1).exp().mean())
    return found
