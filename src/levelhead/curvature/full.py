"""A full curvature matrix over the parameters of a layer, by its eigenvectors: any prior is then free."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.outputs import OutputCurvature
from levelhead.types import CannotCompose, Scalar

MAX_PARAMETERS = 8192  # half a gigabyte a matrix in float64, of which the decomposition holds four
MAX_NUMBERS = 2**25  # of one intermediate of a prediction: a quarter of a gigabyte


@dataclass(frozen=True, eq=False)
class Full:
    """H = V diag(values) V'.

    vectors  (out, in, k): the columns of V, each with the shape of the parameters.
    """

    vectors: Float[Tensor, "out in k"]
    values: Float[Tensor, " k"]

    def __matmul__(self, theta: Float[Tensor, "*b out in"]) -> Float[Tensor, "*b out in"]:
        """See `Curvature.__matmul__`."""
        return self._apply(theta, self.values)

    def solve(self, theta: Float[Tensor, "*b out in"], *, prior: float | Scalar) -> Float[Tensor, "*b out in"]:
        """See `Curvature.solve`."""
        return self._apply(theta, 1 / (self.values + prior))

    def logdet(self, *, prior: float | Scalar) -> Scalar:
        """See `Curvature.logdet`."""
        return (self.values + prior).log().sum()

    def sample(self, noise: Float[Tensor, "*b out in"], *, prior: float | Scalar) -> Float[Tensor, "*b out in"]:
        """See `Curvature.sample`."""
        return self._apply(noise, (self.values + prior).rsqrt())

    def variance(self, z: Float[Tensor, "batch in"], *, prior: float | Scalar) -> Float[Tensor, "batch out"]:
        """See `Curvature.variance`."""
        return torch.cat([root.square().sum(-1) for root in self._roots(z, prior)])

    def covariance(self, z: Float[Tensor, "batch in"], *, prior: float | Scalar) -> Float[Tensor, "batch out out"]:
        """See `Curvature.covariance`."""
        return torch.cat([root @ root.mT for root in self._roots(z, prior)])

    def scaled(self, factor: float) -> "Full":
        """See `Curvature.scaled`."""
        return Full(self.vectors, self.values * factor)

    def tensors(self) -> dict[str, Tensor]:
        """See `Curvature.tensors`."""
        return {"vectors": self.vectors, "values": self.values}

    def _apply(self, theta: Tensor, values: Tensor) -> Tensor:
        """V diag(values) V' theta."""
        coordinates = torch.einsum("... c i, c i k -> ... k", theta, self.vectors)
        return torch.einsum("... k, c i k -> ... c i", coordinates * values, self.vectors)

    def _roots(self, z: Tensor, prior: float | Scalar) -> list[Float[Tensor, "part out k"]]:
        """R with R R' the covariance, of some rows at a time."""
        root = self.vectors * (self.values + prior).rsqrt()
        parts = z.split(max(1, MAX_NUMBERS // (root.shape[0] * root.shape[2])))
        return [torch.einsum("n i, c i k -> n c k", part, root) for part in parts]


class FullSum:
    """See `Accumulator`. Raises CannotCompose, before anything is allocated, for layers that are too large."""

    def __init__(self, num_outputs: int, num_inputs: int, *, bias: bool, like: Tensor) -> None:
        size = num_outputs * num_inputs
        if size > MAX_PARAMETERS:
            raise CannotCompose(
                f"structure='full' over {size:,} parameters wants matrices of {8 * size**2 / 2**30:.1f} GiB each; at "
                f"most {MAX_PARAMETERS:,} parameters are allowed. Write structure='kronecker' or 'diagonal'"
            )
        self.sum = torch.zeros(
            num_outputs, num_inputs, num_outputs, num_inputs, dtype=torch.float64, device=like.device
        )

    def add(self, outputs: OutputCurvature, z: Float[Tensor, "batch in"]) -> None:
        """sum_n Lambda_n[c, d] z_n z_n', a pair of outputs at a time: cheaper by `out` than the rows' Jacobians."""
        for c, row in enumerate(outputs.dense().unbind(1)):
            weighted = torch.einsum("n d, n j -> n d j", row, z)
            self.sum[c] += torch.einsum("n i, n d j -> i d j", z, weighted)

    def value(self) -> Full:
        """The sum's eigenvectors; eigenvalues that rounding made negative become 0."""
        out = self.sum.shape[0]
        values, vectors = torch.linalg.eigh(rearrange(self.sum, "c i d j -> (c i) (d j)"))
        return Full(rearrange(vectors, "(c i) k -> c i k", c=out), values.clamp_min(0))
