"""What a marginal likelihood asks of training: one pass for the curvature, and a noise that only the evidence moves."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.curvature.capture import passing
from levelhead.curvature.diagonal import DiagonalBlockSum
from levelhead.curvature.evidence import NetworkEvidence
from levelhead.curvature.fit_network import BlockSums, FullSums, RowSums, Sums, curvature_at, few_rows
from levelhead.curvature.joint import Joint
from levelhead.curvature.kronecker import KroneckerBlockSum
from levelhead.curvature.places import places
from levelhead.curvature.readout import has_bias, linear_readout
from levelhead.curvature.selection import Selection
from levelhead.likelihood import MIN_VARIANCE, Gaussian
from levelhead.network import Network
from levelhead.predictive import LOG_TWO_PI
from levelhead.tasks.split import Split
from levelhead.types import Batch, CannotCompose, Scalar

SUMS: dict[str, Callable[[Selection, int, Network], Sums]] = {
    "kronecker": lambda selection, num_rows, network: BlockSums(selection, KroneckerBlockSum),
    "diagonal": lambda selection, num_rows, network: BlockSums(selection, DiagonalBlockSum),
    "full": lambda selection, num_rows, network: (
        RowSums(selection) if few_rows(selection, num_rows, network) else FullSums(selection)
    ),
}


class Passed(NamedTuple):
    """What a pass over the training rows leaves.

    squared  summed squared errors of the standardised targets, where the noise is the evidence's; and of how many.
    """

    curvature: Joint
    log_likelihood: float
    squared: float = 0.0
    num_errors: int = 0


def passed(
    network: Network, selection: Selection, split: Split, *, structure: str, kind: str, noise: "Noise | None", rows: int
) -> Passed:
    """The curvature of the loss over a split; at a noise of 1 where the evidence chooses it."""
    like = next(network.parameters())
    sums = SUMS[structure](selection, len(split), network)
    log_likelihood, squared, count = 0.0, 0.0, 0
    with passing(network, selection.watches, differentiable=False) as run, torch.no_grad():
        for batch in split.ordered(rows):
            batch = batch.to(like.device, like.dtype)
            gone = run(batch.x)
            outputs = gone.outputs.detach().double()
            if noise is None:
                y = batch.y.double() if batch.y.is_floating_point() else batch.y
                log_likelihood -= float(network.likelihood.member_loss(outputs[None], y).sum())
                columns = curvature_at(network.likelihood, outputs, y, kind=kind).root()
            else:
                errors = noise.errors(outputs, batch)
                squared, count = squared + float(errors.square().sum()), count + errors.numel()
                columns = noise.mean_columns(outputs)
            sums.add(gone.back(columns.to(like.dtype)))
    return Passed(sums.value(), log_likelihood, squared, count)


class Noise:
    """One variance for all targets, in standardised units: the biases of the outputs that say variances, and no weight.

    Raises CannotCompose for classes, and where the last layer has no bias.
    """

    def __init__(self, network: Network) -> None:
        if not isinstance(network.likelihood, Gaussian):
            raise CannotCompose(
                "MarginalLikelihood(noise='evidence') is of real targets; leave noise='network' for classes"
            )
        self.likelihood: Gaussian = network.likelihood
        self.readout: nn.Linear = linear_readout(network)
        if not has_bias(self.readout):
            raise CannotCompose(
                "MarginalLikelihood(noise='evidence') keeps the noise in the last layer's bias, and it has none; write "
                "noise='network'"
            )
        start = {id(p): place.start for place, p in zip(places(network), network.parameters(), strict=True)}
        width, first = self.readout.in_features, self.likelihood.num_targets
        size = self.readout.out_features
        self.places = [
            *range(start[id(self.readout.weight)] + first * width, start[id(self.readout.weight)] + size * width),
            *range(start[id(self.readout.bias)] + first, start[id(self.readout.bias)] + size),
        ]

    @torch.no_grad()
    def hold(self, log_variance: float) -> None:
        """Put the variance where it belongs, whatever a gradient step did."""
        first = self.likelihood.num_targets
        above = max(math.exp(log_variance) - MIN_VARIANCE, MIN_VARIANCE)
        self.readout.weight[first:] = 0.0
        self.readout.bias[first:] = above + math.log(-math.expm1(-above))  # the inverse of softplus

    def errors(self, outputs: Float[Tensor, "batch output"], batch: Batch) -> Float[Tensor, "batch target"]:
        """What the means miss of the standardised targets."""
        y, shift, scale = batch.y.double(), self.likelihood.shift, self.likelihood.scale
        return (y - y.new_tensor(shift)) / y.new_tensor(scale) - outputs[:, : self.likelihood.num_targets]

    def mean_columns(self, outputs: Float[Tensor, "batch output"]) -> Float[Tensor, "k batch output"]:
        """The root of the curvature in the means at a variance of 1: the identity; variances have none."""
        columns = torch.eye(self.likelihood.num_targets, outputs.shape[-1]).to(outputs)
        return columns[:, None].expand(-1, len(outputs), -1)


def evidence(
    found: Passed,
    theta: Float[Tensor, " flat"],
    groups: tuple[int, ...],
    log_prior: Float[Tensor, " group"],
    log_variance: Scalar | None,
) -> Scalar:
    """log p(data) in nats, differentiable in the logarithms of the prior precisions and of the noise.

    With a noise s, H = H_1 / s: log det(H_1 / s + P_0) - log det P_0 = log det(H_1 + s P_0) - log det(s P_0).
    """
    if log_variance is None:
        return NetworkEvidence(found.curvature, found.log_likelihood, theta, groups)(log_prior.exp())
    s = log_variance.exp()
    fitted = -0.5 * (found.squared / s + found.num_errors * (LOG_TWO_PI + log_variance))
    return fitted + NetworkEvidence(found.curvature, 0.0, theta / s.sqrt(), groups)(s * log_prior.exp())
