"""The diagonal of a curvature matrix over a flat vector: chosen entries of several tensors."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.types import Scalar


@dataclass(frozen=True, eq=False)
class FlatDiagonal:
    """H = diag(values). Priors are a number, or one for every parameter."""

    values: Float[Tensor, " flat"]

    def __matmul__(self, theta: Float[Tensor, "*b flat"]) -> Float[Tensor, "*b flat"]:
        """H theta."""
        return self.values * theta

    def solve(self, theta: Float[Tensor, "*b flat"], *, prior: float | Tensor) -> Float[Tensor, "*b flat"]:
        """(H + diag(prior))^-1 theta."""
        return theta / (self.values + prior)

    def logdet(self, *, prior: float | Tensor) -> Scalar:
        """log det(H + diag(prior)), differentiable in the prior."""
        return (self.values + prior).log().sum()

    def sample(self, noise: Float[Tensor, "*b flat"], *, prior: float | Tensor) -> Float[Tensor, "*b flat"]:
        """Draws of Normal(0, (H + diag(prior))^-1), made of standard normal noise."""
        return noise * (self.values + prior).rsqrt()

    def coordinates(self, jacobian: Float[Tensor, "k batch flat"]) -> Float[Tensor, "k batch flat"]:
        """See `FlatCurvature.coordinates`: the Jacobian itself."""
        return jacobian

    @property
    def spectrum(self) -> Float[Tensor, " flat"]:
        """See `FlatCurvature.spectrum`."""
        return self.values

    def in_units(self, prior: float | Tensor) -> tuple["FlatDiagonal", Tensor]:
        """See `FlatCurvature.in_units`."""
        units = torch.as_tensor(prior).to(self.values)
        return FlatDiagonal(self.values / units), units.sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """What the value is made of."""
        return {"values": self.values}
