"""APS: prediction sets that fill up from the likeliest label, larger where the prediction is hard."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from levelhead.conformal.label_scores import aps_scores
from levelhead.conformal.ranks import check_alpha
from levelhead.conformal.sets import prediction_sets
from levelhead.predictor import Predictor
from levelhead.tasks.task import Task
from levelhead.types import Reference


@dataclass(frozen=True)
class APS:
    """{k : s_k <= q},  s_k = sum of p_j over the labels down to k, less u p_k;  q as in `LAC`, of the true labels' s_y.

    Sets adapt to the row: coverage within easy and hard rows is nearer 1 - alpha than LAC's, at the price of size.

    randomised  u uniform, from a hash of the row's content, so a row has one set in any batch (`with_noise(None)` draws
                afresh). Coverage is then exact, and sets may be empty. False: u = 0, sets are larger.

    alpha, per_class, covariate_shift, ratio_penalty, and what it raises: as in `LAC`.

    Romano, Sesia & Candes, arXiv 2006.02544.
    """

    reference: ClassVar = Reference(
        "Romano, Sesia & Candes", 2020, arxiv="2006.02544", title="Classification with Valid and Adaptive Coverage"
    )
    keeps_labels: ClassVar = True
    needs_fresh_rows: ClassVar = True
    alpha: float = 0.1
    randomised: bool = True
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
        return aps_scores(log_probs, u)
