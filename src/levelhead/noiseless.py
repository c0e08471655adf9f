"""A likelihood for data without noise: a network says the target, squared error is the loss."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.likelihood import MIN_VARIANCE, Gaussian, per_row
from levelhead.predictive import GaussianMixture
from levelhead.types import Scalar, Targets


@dataclass(frozen=True)
class Noiseless:
    """Squared error on exact targets: outputs are one number a target, in standardised target units.

    y = shift + scale * standardised. One network is taken at its word: its predictive has a standard deviation of
    1e-3 scale, which stands for rounding and is no noise of the data, so all uncertainty here is epistemic. It comes
    from what is put around the network: several members, dropout, a side network.
    """

    num_targets: int = 1
    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        Gaussian(self.num_targets, self.shift, self.scale)  # the same demands

    @property
    def void(self) -> None:
        """Every target counts."""
        return

    @property
    def num_outputs(self) -> int:
        """A number for every target."""
        return self.num_targets

    def member_loss(self, outputs: Float[Tensor, "row *batch output"], y: Targets) -> Float[Tensor, "row *batch"]:
        """Squared error of the standardised targets, summed over targets."""
        target = per_row((y - y.new_tensor(self.shift)) / y.new_tensor(self.scale), outputs.shape)
        return (outputs - target).square().sum(-1)

    def loss(self, outputs: Float[Tensor, "row *batch output"], y: Targets) -> Scalar:
        """Mean squared error of the standardised targets."""
        return self.member_loss(outputs, y).mean()

    def predictive(self, outputs: Float[Tensor, "row *batch output"]) -> GaussianMixture:
        """Rows become members of equal weight, in the targets' own units."""
        rounding = torch.full_like(outputs, MIN_VARIANCE)
        return Gaussian(self.num_targets, self.shift, self.scale).unstandardised(outputs, rounding, rounding)

    def example_divergence(
        self, p: Float[Tensor, "row *batch output"], q: Float[Tensor, "row *batch output"]
    ) -> Float[Tensor, "row *batch"]:
        """KL between normal distributions of unit variance about the two, in nats: half the squared difference."""
        return 0.5 * (p - q).square().sum(-1)

    def divergence(self, p: Float[Tensor, "row *batch output"], q: Float[Tensor, "row *batch output"]) -> Scalar:
        """Its mean over rows and sites."""
        return self.example_divergence(p, q).mean()
