"""A predictor with a side network, read out anew: other widths of the same raw uncertainty."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from levelhead.nomu.attached import AttachedUncertainty
from levelhead.nomu.likelihood import WithModelUncertainty, with_model_std
from levelhead.nomu.readout import Readout
from levelhead.predictive import GaussianMixture, Predictive
from levelhead.predictor import Point, Predictor
from levelhead.recalibration.held_out import FittedOnRows
from levelhead.types import CannotCompose


class Reread(FittedOnRows):
    """The predictor inside, with `readout` in place of its own."""

    def __init__(self, inner: Predictor, readout: Readout, fitted_on: str = "") -> None:
        super().__init__()
        self.inner = inner
        self.readout = readout
        self.fitted_on = fitted_on
        self.eval()

    def forward(self, x: Float[Tensor, "batch *input"]) -> Predictive:
        """See `Predictor.forward`."""
        belief, raw, scale = raw_parts(self.inner, x)
        return with_model_std(belief, scale * self.readout(raw))

    def children_predictors(self) -> Sequence[Predictor]:
        """The predictor inside."""
        return (self.inner,)


def raw_parts(
    predictor: Predictor, x: Float[Tensor, "batch *input"]
) -> tuple[GaussianMixture, Float[Tensor, "row *batch target"], Float[Tensor, " target"]]:
    """The belief, the raw uncertainty behind it, and what a standardised deviation is in the targets' units.

    Raises CannotCompose for a predictor without a side network.
    """
    if isinstance(predictor, AttachedUncertainty):
        return predictor.parts(x)
    if isinstance(predictor, Point) and isinstance(predictor.network.likelihood, WithModelUncertainty):
        likelihood = predictor.network.likelihood
        outputs = predictor.outputs(x)
        own, raw = likelihood.parts(outputs)
        return likelihood.inner.predictive(own), raw, raw.new_tensor(likelihood.inner.scale)
    raise CannotCompose(
        f"NomuBounds() reads the raw uncertainty of a side network, and {type(predictor).__name__} has none to read. "
        "Write surgery=(SideNetwork(),) with regularisers=(NomuLoss(),), or posthoc=(AttachNomu(), NomuBounds()); "
        "inside an ensemble, put both into its member; for other predictors write posthoc=(VarianceScaling(),)"
    )
