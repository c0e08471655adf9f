"""The likelihood of a network with a side network: its own, and raw model uncertainty behind its outputs."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.likelihood import Gaussian
from levelhead.noiseless import Noiseless
from levelhead.nomu.readout import Readout
from levelhead.predictive import GaussianMixture
from levelhead.types import Scalar, Targets


@dataclass(frozen=True)
class WithModelUncertainty:
    """Outputs are those of `inner`, then a raw model uncertainty r a target.

    The loss and the divergence are inner's and do not see r: an objective shapes it. The predictive is inner's, with
    the model's part of every variance set to readout(r)^2.
    """

    inner: Gaussian | Noiseless = field(default_factory=Noiseless)
    readout: Readout = field(default_factory=Readout)

    @property
    def void(self) -> None:
        """Every target counts."""
        return

    @property
    def num_targets(self) -> int:
        """Targets of an example."""
        return self.inner.num_targets

    @property
    def num_outputs(self) -> int:
        """Those of `inner`, and one a target."""
        return self.inner.num_outputs + self.num_targets

    def parts(
        self, outputs: Float[Tensor, "row *batch output"]
    ) -> tuple[Float[Tensor, "row *batch own"], Float[Tensor, "row *batch target"]]:
        """Outputs for `inner`, and r."""
        own, raw = outputs.split((self.inner.num_outputs, self.num_targets), dim=-1)
        return own, raw

    def member_loss(self, outputs: Float[Tensor, "row *batch output"], y: Targets) -> Float[Tensor, "row *batch"]:
        """See `inner`."""
        return self.inner.member_loss(self.parts(outputs)[0], y)

    def loss(self, outputs: Float[Tensor, "row *batch output"], y: Targets) -> Scalar:
        """See `inner`."""
        return self.inner.loss(self.parts(outputs)[0], y)

    def predictive(self, outputs: Float[Tensor, "row *batch output"]) -> GaussianMixture:
        """Rows become members of equal weight, in the targets' own units."""
        own, raw = self.parts(outputs)
        return with_model_std(self.inner.predictive(own), self.in_own_units(self.readout(raw)))

    def in_own_units(self, std: Float[Tensor, "row *batch target"]) -> Float[Tensor, "row *batch target"]:
        """Standardised deviations in the targets' units: a factor, no shift."""
        return std * std.new_tensor(self.inner.scale)

    def example_divergence(
        self, p: Float[Tensor, "row *batch output"], q: Float[Tensor, "row *batch output"]
    ) -> Float[Tensor, "row *batch"]:
        """See `inner`."""
        return self.inner.example_divergence(self.parts(p)[0], self.parts(q)[0])

    def divergence(self, p: Float[Tensor, "row *batch output"], q: Float[Tensor, "row *batch output"]) -> Scalar:
        """See `inner`."""
        return self.example_divergence(p, q).mean()


def with_model_std(belief: GaussianMixture, std: Float[Tensor, "row *batch target"]) -> GaussianMixture:
    """The belief with std^2 as the model's part of every variance, in place of what was said before."""
    said = torch.zeros_like(belief.variances) if belief.model_variances is None else belief.model_variances
    part = std.square()
    return replace(belief, variances=(belief.variances - said).clamp_min(0.0) + part, model_variances=part)


def model_std(belief: GaussianMixture) -> Float[Tensor, "*batch target"]:
    """The epistemic standard deviation a target: spread of the members' means, and the model's part of variances."""
    variance = (belief.means - belief.mean).square()
    if belief.model_variances is not None:
        variance = variance + belief.model_variances
    return (variance * belief.weights).sum(0).sqrt()
