"""One pass over training rows for the curvature of a last linear layer: no Jacobian of an example is built."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from levelhead.curvature.diagonal import Diagonal, DiagonalSum
from levelhead.curvature.fit_network import curvature_at
from levelhead.curvature.full import Full, FullSum
from levelhead.curvature.kronecker import Kronecker, KroneckerSum
from levelhead.curvature.readout import check_linear, has_bias, linear_readout, readings, weights, with_bias
from levelhead.curvature.structure import Accumulator, Curvature
from levelhead.network import Network
from levelhead.tasks.split import Split
from levelhead.types import Scalar, Targets


class HeadStructure(NamedTuple):
    """How a last layer's curvature is summed, and what the sum is."""

    sum: Callable[..., Accumulator]
    value: Callable[..., Curvature]


HEAD_STRUCTURES: Mapping[str, HeadStructure] = {
    "full": HeadStructure(FullSum, Full),
    "kronecker": HeadStructure(KroneckerSum, Kronecker),
    "diagonal": HeadStructure(DiagonalSum, Diagonal),
}


class HeadFit(NamedTuple):
    """What one pass leaves: curvature and log likelihood of every member, and the weights."""

    curvatures: list[Curvature]
    log_likelihood: float
    theta: Float[Tensor, "out in"]

    @classmethod
    def of(
        cls,
        network: Network,
        train: Split,
        structure: str,
        *,
        kind: str = "ggn",
        num_draws: int = 1,
        temperature: float = 1.0,
    ) -> "HeadFit":
        """Pass over the rows, clean and in order; see `fit_network.streamed` for kind and temperature."""
        layer = linear_readout(network)
        theta = weights(layer)
        sums: list[Accumulator] = []
        log_likelihood = 0.0
        for reading, y in readings(network, layer, train):
            outputs, z = reading.outputs.double(), with_bias(reading.inputs.double(), layer)
            if not sums:
                check_linear(reading, layer, network)
                make = HEAD_STRUCTURES[structure].sum
                sums = [make(*theta.shape, bias=has_bias(layer), like=theta) for _ in range(len(outputs))]
            log_likelihood -= float(network.likelihood.member_loss(outputs, as_double(y)).sum()) / temperature
            kept = counted(y, network.likelihood.void, outputs.shape[1:-1])
            targets = as_double(y)[kept] if y.shape[: kept.ndim] == kept.shape else as_double(y)
            for member, accumulator in enumerate(sums):
                curve = curvature_at(network.likelihood, outputs[member][kept], targets, kind=kind, num_draws=num_draws)
                accumulator.add(curve, z[member][kept])
        return cls([accumulator.value().scaled(1 / temperature) for accumulator in sums], log_likelihood, theta)

    def evidence(self, prior: float | Scalar) -> Scalar:
        """log p(data) ~ log p(data | theta*) - (log det P - log det P_0 + prior |theta*|^2) / 2, in nats.

        Of all members together; regression: of the standardised targets. Differentiable in the prior.
        """
        prior = torch.as_tensor(prior, dtype=self.theta.dtype, device=self.theta.device)
        size, squared = self.theta.numel(), self.theta.square().sum()
        penalties = [c.logdet(prior=prior) - size * prior.log() + prior * squared for c in self.curvatures]
        return self.log_likelihood - 0.5 * torch.stack(penalties).sum()


def counted(y: Targets, void: int | None, shape: torch.Size) -> Bool[Tensor, "..."]:
    """Which rows and sites count."""
    if void is None or y.is_floating_point():
        return torch.ones(shape, dtype=torch.bool, device=y.device)
    return y != void


def as_double(y: Targets) -> Targets:
    """Targets in float64, labels as they are."""
    return y.double() if y.is_floating_point() else y
