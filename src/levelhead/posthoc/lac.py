"""LAC: prediction sets of all labels that are probable enough. The smallest on average, and possibly empty."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from levelhead.conformal.label_scores import lac_scores
from levelhead.conformal.ranks import check_alpha
from levelhead.conformal.sets import prediction_sets
from levelhead.predictor import Predictor
from levelhead.tasks.task import Task
from levelhead.types import Reference


@dataclass(frozen=True)
class LAC:
    """{k : 1 - p_k <= q},  q the ceil((n + 1)(1 - alpha))-th smallest 1 - p_y of the n calibration rows.

    P(y in set) >= 1 - alpha for rows exchangeable with those of task.calibration, whatever the predictor; so nothing
    else may be fitted on these rows (a recipe shares them out). Beliefs stay as they are.

    alpha            error rate.
    per_class        a threshold for each class, from its own rows: then the promise holds within each class. Classes
                     of fewer than 1 / alpha - 1 rows are in every set.
    covariate_shift  weigh rows by a density ratio towards task.unlabelled: the promise then holds there, as far as the
                     ratio is right and labels depend on inputs as before.
    ratio_penalty    of the logistic regression behind that ratio.

    Raises CannotCompose for real targets, pixels, rows that something else was fitted on, and after another set.

    Sadinle, Lei & Wasserman, arXiv 1609.00451.
    """

    reference: ClassVar = Reference(
        "Sadinle, Lei & Wasserman",
        2016,
        arxiv="1609.00451",
        title="Least Ambiguous Set-Valued Classifiers with Bounded Error Levels",
    )
    keeps_labels: ClassVar = True
    needs_fresh_rows: ClassVar = True
    randomised: ClassVar = False
    alpha: float = 0.1
    per_class: bool = False
    covariate_shift: bool = False
    ratio_penalty: float = 1e-2

    def __post_init__(self) -> None:
        check_alpha(self.alpha)

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, with sets."""
        return prediction_sets(predictor, task, self)

    def scores(self, log_probs: Float[Tensor, "row class"], u: Float[Tensor, " row"]) -> Float[Tensor, "row class"]:
        """See `LabelScore`."""
        return lac_scores(log_probs)
