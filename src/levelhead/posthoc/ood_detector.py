"""A detector in deployment: its score travels with every belief, as the log density of the features does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from levelhead.detectors._look import Look
from levelhead.detectors.mahalanobis import Mahalanobis
from levelhead.predictive import Predictive
from levelhead.predictor import Predictor
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose, Reference


@dataclass(frozen=True)
class OODDetector:
    """Attaches -score to the beliefs as `log_density`, so that low means out-of-distribution; labels stay.

    detector  a spec of `levelhead.detectors`: `ood_detector(knn(k=10))` in text. It is fitted on task.train, in eval.

    An unnormalised log density, comparable between rows of one predictor alone; the suite `ood` measures it under
    `density`. To reject rows, compare it with a quantile of its values on task.calibration. Raises CannotCompose where
    the predictor does not show what the detector needs. Yang et al., arXiv 2110.11334, survey the field.
    """

    reference: ClassVar = Reference(
        "Yang et al.", 2024, arxiv="2110.11334", title="Generalized Out-of-Distribution Detection: A Survey"
    )
    keeps_labels: ClassVar = True
    detector: Any = field(default_factory=Mahalanobis)

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor with the detector on it. Reads task.train."""
        if isinstance(predictor, Detecting):
            raise CannotCompose(
                "OODDetector() on top of another: beliefs carry one density. Leave one of them out; "
                "the suite ood(detectors=(...)) measures several at once"
            )
        scorer = self.detector.fit(predictor, task)
        return Detecting(predictor, self.detector, scorer.learned)


class Detecting(Predictor):
    """A predictor whose beliefs carry minus a detector's score.

    learned  what the detector knows of the training rows: one mapping of tensors a member.
    """

    def __init__(self, inner: Predictor, detector: Any, learned: Sequence[Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.inner = inner
        self.detector = detector
        self.learned = [dict(own) for own in learned]
        self.eval()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Detecting":
        """Moves what was learned with the module; it stays in its own precision."""
        super()._apply(fn, recurse)
        self.learned = [{name: t.to(fn(t).device) for name, t in own.items()} for own in self.learned]
        return self

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        look = Look(self.inner, x)
        score = self.detector.score(look, self.learned)
        return look.belief.with_log_density(-score.to(look.belief.log_weights.dtype))

    def children_predictors(self) -> Sequence[Predictor]:
        """The predictor inside."""
        return (self.inner,)
