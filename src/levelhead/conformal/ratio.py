"""How much likelier an input is among new rows than among calibration rows: a logistic regression tells them apart."""

import warnings
from typing import NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from levelhead.conformal.ranks import effective_size
from levelhead.predictor import Predictor
from levelhead.recalibration.affine import minimised
from levelhead.recalibration.held_out import FEW_ROWS
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose, Scalar

BATCH = 500
FEW_EFFECTIVE = 30  # weighted rows: below it a set at the usual error rates is mostly everything
NO_UNLABELLED = (
    "{step} weights calibration rows by how likely they are among new inputs, and this task has no unlabelled rows. "
    "Give the task unlabelled= rows from where the predictor will be used, or write {plain}"
)


class DensityRatio(NamedTuple):
    """log w(x) = coefficients' (f(x) - mean) / scale, up to a constant, which weighted quantiles do not see.

    f(x) is x itself for rows of features, and the features of the predictor's first network for images.
    """

    mean: Float[Tensor, " feature"]
    scale: Float[Tensor, " feature"]
    coefficients: Float[Tensor, " feature"]

    def __call__(self, f: Float[Tensor, "batch feature"]) -> Float[Tensor, " batch"]:
        """The log weights, float64."""
        return ((f.double() - self.mean.double()) / self.scale.double()) @ self.coefficients.double()

    @property
    def table(self) -> Float[Tensor, "3 feature"]:
        """As one tensor, to be stored."""
        return torch.stack(list(self))

    @classmethod
    def of(cls, table: Float[Tensor, "3 feature"]) -> Self:
        """From `table`."""
        return cls(*table)


@torch.no_grad()
def described(predictor: Predictor, x: Float[Tensor, "batch *input"]) -> Float[Tensor, "batch feature"]:
    """f(x): see `DensityRatio`; members, samples and sites are averaged."""
    if x.ndim == 2:
        return x.double()
    network = next(predictor.networks())
    features = network.embed(x.to(next(network.parameters())))
    return reduce(features.double(), "row b ... feature -> b feature", "mean")


def described_split(predictor: Predictor, split: Split) -> Float[Tensor, "row feature"]:
    """f of a whole split, in order."""
    return torch.cat([described(predictor, batch.x) for batch in split.ordered(BATCH)])


def fitted_ratio(
    old: Float[Tensor, "row feature"], new: Float[Tensor, "new feature"], *, penalty: float
) -> DensityRatio:
    """Logistic regression of new (1) against old (0) rows, both sides weighted alike, on standardised features.

    penalty  on |coefficients|^2 / 2, beside mean log loss: it pulls the weights together where features are many.
    """
    both = torch.cat([old, new]).double()
    mean, scale = both.mean(0), both.std(0)
    scale = torch.where(scale > 0, scale, 1.0)
    first, second = ((f.double() - mean) / scale for f in (old, new))

    def loss(coefficients: Tensor, intercept: Tensor) -> Scalar:
        wrong = (
            F.softplus(first @ coefficients + intercept).mean() + F.softplus(-second @ coefficients - intercept).mean()
        )
        return wrong / 2 + penalty * coefficients.square().sum() / 2

    coefficients, _ = minimised(loss, torch.zeros_like(mean), mean.new_zeros(()))
    return DensityRatio(mean, scale, coefficients)


class Weighted(Protocol):
    """What `shift_weights` asks of a spec."""

    @property
    def ratio_penalty(self) -> float:
        """On the logistic regression that finds the weights."""


def shift_weights(
    predictor: Predictor, task: Task, spec: Weighted, *, step: str
) -> tuple[Float[Tensor, " row"], DensityRatio]:
    """Log weights of the calibration rows towards task.unlabelled, and the ratio that gives those of new rows.

    Raises CannotCompose without unlabelled rows; warns where the weighted rows are worth few.
    """
    if task.unlabelled is None:
        plain = step.replace("()", "(covariate_shift=False)")
        raise CannotCompose(NO_UNLABELLED.format(step=step.replace("()", "(covariate_shift=True)"), plain=plain))
    old = described_split(predictor, task.calibration)
    ratio = fitted_ratio(old, described_split(predictor, task.unlabelled), penalty=spec.ratio_penalty)
    log_weights = ratio(old)
    size = effective_size(log_weights)
    if len(old) >= FEW_ROWS and size < FEW_EFFECTIVE:
        warnings.warn(
            f"{step}: weighted towards the unlabelled rows, the {len(old)} calibration rows are worth {size:.0f}: the "
            "shift is larger than they can bridge. Label some of the new rows, or raise ratio_penalty",
            stacklevel=3,
        )
    return log_weights, ratio
