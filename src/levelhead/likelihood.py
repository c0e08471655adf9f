"""What a network's outputs mean: likelihoods, and the signature that a network is built for."""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from levelhead.predictive import LOG_TWO_PI, CategoricalMixture, GaussianMixture, Predictive
from levelhead.types import Scalar, Targets

MIN_VARIANCE = 1e-6  # in standardised target units; keeps a perfectly fitted residual from an infinite density


class Likelihood(Protocol):
    """What the last axis of a network's outputs means. Sites labelled `void` do not count."""

    @property
    def void(self) -> int | None:
        """The label that does not count, or None."""

    @property
    def num_outputs(self) -> int:
        """Size of the last axis of a network's outputs."""

    def loss(self, outputs: Float[Tensor, "row *batch output"], y: Targets) -> Scalar:
        """Mean negative log likelihood, over rows and sites that are not void, in nats."""

    def member_loss(self, outputs: Float[Tensor, "row *batch output"], y: Targets) -> Float[Tensor, "row *batch"]:
        """Negative log likelihood of each row and site (zero where void), in nats."""

    def predictive(self, outputs: Float[Tensor, "row *batch output"]) -> Predictive:
        """The belief that these outputs mean; rows become members."""

    def divergence(self, p: Float[Tensor, "row *batch output"], q: Float[Tensor, "row *batch output"]) -> Scalar:
        """Mean KL(p || q) over rows and sites, in nats."""

    def example_divergence(
        self, p: Float[Tensor, "row *batch output"], q: Float[Tensor, "row *batch output"]
    ) -> Float[Tensor, "row *batch"]:
        """KL(p || q) of each row and site, in nats."""


@dataclass(frozen=True)
class Categorical:
    """Classes by softmax. Labels int (*member, *batch), or soft float (..., class); void sites do not count."""

    num_classes: int = 2
    void: int | None = None

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"Categorical: num_classes must be at least 2, got {self.num_classes}")

    @property
    def num_outputs(self) -> int:
        """One logit a class."""
        return self.num_classes

    def member_loss(self, outputs: Float[Tensor, "row *batch output"], y: Targets) -> Float[Tensor, "row *batch"]:
        """Cross-entropy of each row and site in nats; zero where void."""
        if y.is_floating_point():
            return -(F.log_softmax(outputs, dim=-1) * per_row(y, outputs.shape)).sum(-1)
        labels = per_row(y, outputs.shape[:-1])
        flat = F.cross_entropy(
            outputs.reshape(-1, outputs.shape[-1]),
            labels.reshape(-1),
            reduction="none",
            ignore_index=-100 if self.void is None else self.void,
        )
        return flat.reshape(outputs.shape[:-1])

    def loss(self, outputs: Float[Tensor, "row *batch output"], y: Targets) -> Scalar:
        """Mean cross-entropy over rows and sites that are not void, in nats."""
        losses = self.member_loss(outputs, y)
        if self.void is None or y.is_floating_point():
            return losses.mean()
        return losses.sum() / (per_row(y, losses.shape) != self.void).sum().clamp_min(1)

    def predictive(self, outputs: Float[Tensor, "row *batch output"]) -> CategoricalMixture:
        """Rows become members of equal weight."""
        return CategoricalMixture(outputs)

    def example_divergence(
        self, p: Float[Tensor, "row *batch output"], q: Float[Tensor, "row *batch output"]
    ) -> Float[Tensor, "row *batch"]:
        """KL(softmax(p) || softmax(q)) of each row and site, in nats."""
        log_p, log_q = F.log_softmax(p, dim=-1), F.log_softmax(q, dim=-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    def divergence(self, p: Float[Tensor, "row *batch output"], q: Float[Tensor, "row *batch output"]) -> Scalar:
        """Mean KL(softmax(p) || softmax(q)), in nats."""
        return self.example_divergence(p, q).mean()


@dataclass(frozen=True)
class Gaussian:
    """Heteroscedastic regression: outputs are (mean, raw variance) for every target, in standardised target units.

    y = shift + scale * standardised; variance = softplus(raw) + 1e-6 (Lakshminarayanan et al., arXiv 1612.01474).
    The loss is in standardised units (so learning rates do not depend on units); predictives are in the targets' own.
    """

    num_targets: int = 1
    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        for name, value in (("shift", self.shift), ("scale", self.scale)):
            if len(value) != self.num_targets:
                raise ValueError(f"Gaussian: {name} wants {self.num_targets} numbers, got {len(value)}")
        if min(self.scale) <= 0:
            raise ValueError(f"Gaussian: scale must be positive, got {self.scale}")

    @property
    def void(self) -> None:
        """Every target counts."""
        return

    @property
    def num_outputs(self) -> int:
        """A mean and a raw variance for every target."""
        return 2 * self.num_targets

    def moments(
        self, outputs: Float[Tensor, "row *batch output"]
    ) -> tuple[Float[Tensor, "row *batch target"], Float[Tensor, "row *batch target"]]:
        """Mean and variance, standardised."""
        mean, raw = outputs.split(self.num_targets, dim=-1)
        return mean, F.softplus(raw) + MIN_VARIANCE

    def member_loss(self, outputs: Float[Tensor, "row *batch output"], y: Targets) -> Float[Tensor, "row *batch"]:
        """Gaussian negative log likelihood of the standardised targets, summed over targets, in nats."""
        mean, variance = self.moments(outputs)
        target = per_row((y - y.new_tensor(self.shift)) / y.new_tensor(self.scale), mean.shape)
        return 0.5 * ((target - mean).square() / variance + variance.log() + LOG_TWO_PI).sum(-1)

    def loss(self, outputs: Float[Tensor, "row *batch output"], y: Targets) -> Scalar:
        """Mean Gaussian negative log likelihood of the standardised targets, in nats."""
        return self.member_loss(outputs, y).mean()

    def predictive(self, outputs: Float[Tensor, "row *batch output"]) -> GaussianMixture:
        """Rows become members of equal weight, in the targets' own units."""
        mean, variance = self.moments(outputs)
        return self.unstandardised(mean, variance)

    def unstandardised(
        self,
        mean: Float[Tensor, "row *batch target"],
        variance: Float[Tensor, "row *batch target"],
        model: Float[Tensor, "row *batch target"] | None = None,
    ) -> GaussianMixture:
        """The mixture whose standardised moments these are; `model` is the part of the variance that is the model's."""
        scale = mean.new_tensor(self.scale)
        mean = mean * scale + mean.new_tensor(self.shift)
        part = None if model is None else model * scale.square()
        return GaussianMixture(mean, variance * scale.square(), model_variances=part)

    def example_divergence(
        self, p: Float[Tensor, "row *batch output"], q: Float[Tensor, "row *batch output"]
    ) -> Float[Tensor, "row *batch"]:
        """KL between the two Gaussians of each row and site, summed over targets, in nats."""
        (mean_p, var_p), (mean_q, var_q) = self.moments(p), self.moments(q)
        ratio = var_p / var_q
        return 0.5 * (ratio - 1 - ratio.log() + (mean_p - mean_q).square() / var_q).sum(-1)

    def divergence(self, p: Float[Tensor, "row *batch output"], q: Float[Tensor, "row *batch output"]) -> Scalar:
        """Mean KL between the two Gaussians, in nats."""
        return self.example_divergence(p, q).mean()


def per_row(y: Targets, shape: tuple[int, ...] | torch.Size) -> Targets:
    """Targets with an axis for rows: members' own targets are repeated over samples, shared ones over all rows."""
    if y.ndim == len(shape):
        rows, members = shape[0], y.shape[0]
        if rows % members:
            raise ValueError(f"y has {members} members, the outputs have {rows} rows: not a multiple")
        return y.repeat_interleave(rows // members, dim=0).expand(shape)  # rows are member-major
    return y.expand(shape)


@dataclass(frozen=True)
class Signature:
    """What a network must fit: plain numbers, made from a task, enough to rebuild it.

    input_shape  of one example, without the batch: (channel, height, width) or (feature,).
    mean, std    of the training inputs, one a channel or feature, for the first layer.
    """

    input_shape: tuple[int, ...] = (1,)
    num_outputs: int = 2
    likelihood: Likelihood = Categorical()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"Signature: mean has {len(self.mean)} numbers, std has {len(self.std)}")
        if min(self.std) <= 0:
            raise ValueError(f"Signature: std must be positive, got {self.std}")

    def example(self, batch: int = 2, *, seed: int = 0) -> Float[Tensor, "batch *input"]:
        """Random inputs of the right shape, uniform in [0, 1]: for probing a network, never for learning."""
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(batch, *self.input_shape, generator=generator)


def soft(y: Targets, num_classes: int, *, asker: str = "this part") -> Float[Tensor, "*batch class"]:
    """Labels as probabilities: one-hot for int labels, unchanged for soft ones."""
    if y.is_floating_point():
        if y.shape[-1] != num_classes:
            raise ValueError(f"{asker}: soft labels have {y.shape[-1]} classes, the likelihood {num_classes}")
        return y
    return F.one_hot(y, num_classes).to(torch.get_default_dtype())
