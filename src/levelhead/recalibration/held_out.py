"""What steps that fit on task.calibration share: flat rows, and refusals of what would be wrong in silence."""

from typing import NamedTuple

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.predictive import CategoricalMixture, GaussianMixture, Predictive
from levelhead.predictor import Predictor, predict
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose, Targets

MIN_LOG_PROB = -1e3  # keeps 0 * inf out of classes that a predictor excludes
FEW_ROWS = 32  # a dry run's handful tells nothing, and nobody deploys what was fitted on it


class FittedOnRows(Predictor):
    """A predictor with something fitted on held-out rows. fitted_on: the digest of that split, "" where unknown."""

    fitted_on: str


class ClassRows(NamedTuple):
    """Held-out rows and sites that count: log probabilities of the mixture in float64, and labels or soft labels."""

    log_probs: Float[Tensor, "row class"]
    y: Targets

    @property
    def labels(self) -> Targets:
        """The labels; the most likely class of soft ones."""
        return self.y.argmax(-1) if self.y.is_floating_point() else self.y


def class_rows(predictor: Predictor, task: Task, *, step: str) -> ClassRows:
    """The calibration rows and sites that are not void, through the predictor; no row may repeat an axis of its own.

    Raises CannotCompose for real targets and after a conformal or selective step, ValueError where no row counts.
    """
    belief = categorical(undecided(predict(predictor, task.calibration), step=step), step=step)
    y = task.calibration.y.to(belief.log_weights.device)
    log_probs = rearrange(belief.log_probs.double().clamp_min(MIN_LOG_PROB), "... k -> (...) k")
    if y.is_floating_point():
        return ClassRows(log_probs, rearrange(y.double(), "... k -> (...) k"))
    y, void = y.reshape(-1), task.likelihood.void
    if void is not None:
        log_probs, y = log_probs[y != void], y[y != void]
        if len(y) == 0:
            raise ValueError(f"{step}: every calibration label is void ({void}); hold out rows that count")
    return ClassRows(log_probs, y)


def undecided(belief: Predictive, *, step: str) -> Predictive:
    """The belief, unless sets, intervals or abstentions hang on it: they hold for no other belief.

    Raises CannotCompose with the order to write.
    """
    if belief.decided:
        raise CannotCompose(
            f"{step} changes beliefs, and the prediction sets, intervals or abstentions of an earlier step hold for "
            f"those that were there before. Put the conformal and selective steps last: posthoc=({step}, ...)"
        )
    return belief


def categorical(belief: Predictive, *, step: str) -> CategoricalMixture:
    """The belief, about labels. Raises CannotCompose for real targets."""
    if isinstance(belief, CategoricalMixture):
        return belief
    raise CannotCompose(
        f"{step} works on probabilities of classes, and this predictor speaks of real targets. Write "
        "posthoc=(VarianceScaling(),) to calibrate them, or posthoc=(CQR(),) for prediction intervals"
    )


def gaussian(belief: Predictive, *, step: str) -> GaussianMixture:
    """The belief, about real targets. Raises CannotCompose for labels."""
    if isinstance(belief, GaussianMixture):
        return belief
    raise CannotCompose(
        f"{step} works on real targets, and this predictor speaks of classes. Write posthoc=(Temperature(),) to "
        "calibrate them, or posthoc=(APS(),) for prediction sets"
    )


def fresh_rows(predictor: Predictor, task: Task, *, step: str) -> str:
    """The digest of the calibration rows, on which nothing inside the predictor was fitted.

    Raises CannotCompose where something was: rows that chose the beliefs are not exchangeable with new ones.
    """
    rows = task.calibration.digest
    for part in predictor.modules():
        if isinstance(part, FittedOnRows) and part.fitted_on == rows:
            raise CannotCompose(
                f"{step} promises something about new rows, which takes calibration rows that nothing else was fitted "
                f"on, and {type(part).__name__} was fitted on these. Put both steps into one recipe, which shares the "
                f"rows out (posthoc=(..., {step})), or use task.shared_calibration() to share them by hand"
            )
    return rows


def all_right(rows: ClassRows) -> bool:
    """Whether every row is classified right and there are enough of them to wonder."""
    return len(rows.log_probs) >= FEW_ROWS and bool((rows.log_probs.argmax(-1) == rows.labels).all())


def warning_all_right(step: str, rows: ClassRows) -> str:
    """The text for a likelihood that grows without bound."""
    return (
        f"{step}: all {len(rows.log_probs)} calibration rows are classified right, so the likelihood has no maximum "
        "and only the penalty stops the fit. Hold out more rows for calibration, or leave the step out"
    )
