"""The diagonal of a curvature matrix."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.outputs import OutputCurvature
from levelhead.curvature.rows import Rows
from levelhead.types import Scalar


@dataclass(frozen=True, eq=False)
class Diagonal:
    """H = diag(values), values with the shape of the parameters."""

    values: Float[Tensor, "*group out in"]

    def __matmul__(self, theta: Float[Tensor, "*b out in"]) -> Float[Tensor, "*b out in"]:
        """See `Curvature.__matmul__`."""
        return self.values * theta

    def solve(self, theta: Float[Tensor, "*b out in"], *, prior: float | Scalar) -> Float[Tensor, "*b out in"]:
        """See `Curvature.solve`."""
        return theta / (self.values + prior)

    def logdet(self, *, prior: float | Scalar) -> Scalar:
        """See `Curvature.logdet`."""
        return (self.values + prior).log().sum()

    def sample(self, noise: Float[Tensor, "*b out in"], *, prior: float | Scalar) -> Float[Tensor, "*b out in"]:
        """See `Curvature.sample`."""
        return noise * (self.values + prior).rsqrt()

    def variance(self, z: Float[Tensor, "batch in"], *, prior: float | Scalar) -> Float[Tensor, "batch out"]:
        """See `Curvature.variance`."""
        return z.square() @ (1 / (self.values + prior)).T

    def covariance(self, z: Float[Tensor, "batch in"], *, prior: float | Scalar) -> Float[Tensor, "batch out out"]:
        """See `Curvature.covariance`."""
        return torch.diag_embed(self.variance(z, prior=prior))

    def coordinates(self, rows: Rows) -> Float[Tensor, "k batch own"]:
        """See `BlockCurvature.coordinates`."""
        return rows.gradients().flatten(2)

    def along(self, rows: Rows) -> Rows:
        """See `BlockCurvature.along`: the rows themselves."""
        return rows

    def scaled(self, factor: float) -> "Diagonal":
        """See `Curvature.scaled`."""
        return Diagonal(self.values * factor)

    def tensors(self) -> dict[str, Tensor]:
        """See `Curvature.tensors`."""
        return {"values": self.values}


class DiagonalSum:
    """See `Accumulator`."""

    def __init__(self, num_outputs: int, num_inputs: int, *, bias: bool, like: Tensor) -> None:
        self.sum = torch.zeros(num_outputs, num_inputs, dtype=torch.float64, device=like.device)

    def add(self, outputs: OutputCurvature, z: Float[Tensor, "batch in"]) -> None:
        """sum_n Lambda_n[c, c] z_n^2."""
        self.sum += outputs.diagonal().T @ z.square()

    def value(self) -> Diagonal:
        """The sum."""
        return Diagonal(self.sum)


class DiagonalBlockSum:
    """See `BlockAccumulator`. sum of G^2 over columns and rows: exact, also where a tensor is used at many places."""

    def __init__(self, block: tuple[int, int, int], *, like: Tensor) -> None:
        self.sum = torch.zeros(block, dtype=torch.float64, device=like.device)

    def add(self, rows: Rows) -> None:
        """Count some rows, with all their columns."""
        self.sum += rows.squares()

    def value(self) -> Diagonal:
        """The sum."""
        return Diagonal(self.sum)
