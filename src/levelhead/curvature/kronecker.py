"""A curvature matrix as a Kronecker product of one factor over a layer's outputs and one over its inputs (KFAC).

Groups of channels (grouped convolutions) have a product each: their axis leads.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.outputs import OutputCurvature
from levelhead.curvature.rows import Rows
from levelhead.types import Scalar


@dataclass(frozen=True, eq=False)
class Kronecker:
    """H = B (x) A by the eigenvectors of both: H theta = B theta A, and adding a prior is exact."""

    out_vectors: Float[Tensor, "*group out out"]
    out_values: Float[Tensor, "*group out"]
    in_vectors: Float[Tensor, "*group in in"]
    in_values: Float[Tensor, "*group in"]

    @property
    def values(self) -> Float[Tensor, "*group out in"]:
        """The eigenvalues b_i a_j."""
        return self.out_values.unsqueeze(-1) * self.in_values.unsqueeze(-2)

    def __matmul__(self, theta: Float[Tensor, "*b out in"]) -> Float[Tensor, "*b out in"]:
        """See `Curvature.__matmul__`."""
        return self._back(self._coordinates(theta) * self.values)

    def solve(self, theta: Float[Tensor, "*b out in"], *, prior: float | Scalar) -> Float[Tensor, "*b out in"]:
        """See `Curvature.solve`."""
        return self._back(self._coordinates(theta) / (self.values + prior))

    def logdet(self, *, prior: float | Scalar) -> Scalar:
        """See `Curvature.logdet`."""
        return (self.values + prior).log().sum()

    def sample(self, noise: Float[Tensor, "*b out in"], *, prior: float | Scalar) -> Float[Tensor, "*b out in"]:
        """See `Curvature.sample`."""
        return self._back(noise * (self.values + prior).rsqrt())

    def variance(self, z: Float[Tensor, "batch in"], *, prior: float | Scalar) -> Float[Tensor, "batch out"]:
        """See `Curvature.variance`: out^2 + out * in numbers a row and no more, for a thousand classes too."""
        return self._along_outputs(z, prior) @ self.out_vectors.square().T

    def covariance(self, z: Float[Tensor, "batch in"], *, prior: float | Scalar) -> Float[Tensor, "batch out out"]:
        """See `Curvature.covariance`."""
        return torch.einsum("c k, n k, d k -> n c d", self.out_vectors, self._along_outputs(z, prior), self.out_vectors)

    def coordinates(self, rows: Rows) -> Float[Tensor, "k batch own"]:
        """See `BlockCurvature.coordinates`."""
        like = rows.cotangents
        return rows.gradients(self.out_vectors.to(like), self.in_vectors.to(like)).flatten(2)

    def along(self, rows: Rows) -> Rows:
        """See `BlockCurvature.along`."""
        return rows.rotated(self.out_vectors.to(rows.inputs), self.in_vectors.to(rows.inputs))

    def scaled(self, factor: float) -> "Kronecker":
        """See `Curvature.scaled`."""
        return Kronecker(self.out_vectors, self.out_values * factor, self.in_vectors, self.in_values)

    def tensors(self) -> dict[str, Tensor]:
        """See `Curvature.tensors`."""
        return {
            "out_vectors": self.out_vectors,
            "out_values": self.out_values,
            "in_vectors": self.in_vectors,
            "in_values": self.in_values,
        }

    def _coordinates(self, theta: Tensor) -> Tensor:
        return self.out_vectors.mT @ theta @ self.in_vectors

    def _back(self, coordinates: Tensor) -> Tensor:
        return self.out_vectors @ coordinates @ self.in_vectors.mT

    def _along_outputs(self, z: Tensor, prior: float | Scalar) -> Float[Tensor, "batch out"]:
        """Variance of the outputs along the eigenvectors of B, in which they are independent."""
        return (z @ self.in_vectors).square() @ (1 / (self.values + prior)).T


class KroneckerSum:
    """See `Accumulator`. B = sum_n Lambda_n and A = mean_n z_n z_n'; exact where Lambda does not depend on z.

    The bias has a block of its own, B: its products with the other inputs are left out of A.
    """

    def __init__(self, num_outputs: int, num_inputs: int, *, bias: bool, like: Tensor) -> None:
        self.outputs = torch.zeros(num_outputs, num_outputs, dtype=torch.float64, device=like.device)
        self.inputs = torch.zeros(num_inputs, num_inputs, dtype=torch.float64, device=like.device)
        self.count = 0
        self.bias = bias

    def add(self, outputs: OutputCurvature, z: Float[Tensor, "batch in"]) -> None:
        """Count some rows."""
        self.outputs += outputs.total()
        self.inputs += z.T @ z
        self.count += len(z)

    def value(self) -> Kronecker:
        """Both factors' eigenvectors; eigenvalues that rounding made negative become 0."""
        a = self.inputs / max(self.count, 1)
        if self.bias:
            a[-1, :-1] = a[:-1, -1] = 0
        return decomposed(self.outputs, a)


class KroneckerBlockSum:
    """See `BlockAccumulator`. B = sum b b' over columns, rows and places, A = mean of a a' over rows and places."""

    def __init__(self, block: tuple[int, int, int], *, like: Tensor) -> None:
        group, out, ins = block
        self.outputs = torch.zeros(group, out, out, dtype=torch.float64, device=like.device)
        self.inputs = torch.zeros(group, ins, ins, dtype=torch.float64, device=like.device)
        self.count = 0

    def add(self, rows: Rows) -> None:
        """Count some rows, with all their columns."""
        b = rearrange(rows.cotangents, "k g n r o -> g (k n r) o")
        a = rearrange(rows.inputs, "g n r i -> g (n r) i")
        self.outputs += b.mT @ b
        self.inputs += a.mT @ a / rows.inputs.shape[2]
        self.count += rows.inputs.shape[1]

    def value(self) -> Kronecker:
        """Both factors' eigenvectors."""
        return decomposed(self.outputs, self.inputs / max(self.count, 1))


def decomposed(outputs: Float[Tensor, "*group out out"], inputs: Float[Tensor, "*group in in"]) -> Kronecker:
    """The product of two factors; eigenvalues that rounding made negative become 0."""
    out_values, out_vectors = torch.linalg.eigh(outputs)
    in_values, in_vectors = torch.linalg.eigh(inputs)
    return Kronecker(out_vectors, out_values.clamp_min(0), in_vectors, in_values.clamp_min(0))
