"""RAPS: APS with a price on every label beyond the first few, for many classes with a long tail."""

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
class RAPS:
    """{k : s_k + slope (r_k - free_ranks)_+ <= q},  s_k of `APS` and r_k the rank of k from the top, counted from 1.

    slope       price of a rank (lambda); 0 is APS.
    free_ranks  how many labels are free of it (k_reg).
    randomised  as in `APS`.

    alpha, per_class, covariate_shift, ratio_penalty, and what it raises: as in `LAC`.

    Angelopoulos, Bates, Malik & Jordan, arXiv 2009.14193.
    """

    reference: ClassVar = Reference(
        "Angelopoulos, Bates, Malik & Jordan",
        2020,
        arxiv="2009.14193",
        title="Uncertainty Sets for Image Classifiers using Conformal Prediction",
    )
    keeps_labels: ClassVar = True
    needs_fresh_rows: ClassVar = True
    alpha: float = 0.1
    slope: float = 0.01
    free_ranks: int = 5
    randomised: bool = True
    per_class: bool = False
    covariate_shift: bool = False
    ratio_penalty: float = 1e-2

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if self.slope < 0 or self.free_ranks < 0:
            raise ValueError(f"RAPS: slope and free_ranks must be at least 0, got {self.slope} and {self.free_ranks}")

    def __call__(self, predictor: Predictor, task: Task) -> Predictor:
        """The predictor, with sets."""
        return prediction_sets(predictor, task, self)

    def scores(self, log_probs: Float[Tensor, "row class"], u: Float[Tensor, " row"]) -> Float[Tensor, "row class"]:
        """See `LabelScore`."""
        return aps_scores(log_probs, u, slope=self.slope, free_ranks=self.free_ranks)
