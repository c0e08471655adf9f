"""What every structure of a curvature matrix can do: a symmetric positive semi-definite matrix as a value.

It acts on a matrix of parameters theta (out, in): a linear layer's weights, its bias as a last column of `in`. The
posterior precision is H + prior I, for any prior without new decompositions.
"""

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from levelhead.curvature.outputs import OutputCurvature
from levelhead.curvature.rows import Rows
from levelhead.types import Scalar


class Curvature(Protocol):
    """H over parameters theta (out, in). All tensors are float64."""

    def __matmul__(self, theta: Float[Tensor, "*k out in"]) -> Float[Tensor, "*k out in"]:
        """H theta."""

    def solve(self, theta: Float[Tensor, "*k out in"], *, prior: float | Scalar) -> Float[Tensor, "*k out in"]:
        """(H + prior I)^-1 theta."""

    def logdet(self, *, prior: float | Scalar) -> Scalar:
        """log det(H + prior I)."""

    def sample(self, noise: Float[Tensor, "*k out in"], *, prior: float | Scalar) -> Float[Tensor, "*k out in"]:
        """Draws of Normal(0, (H + prior I)^-1), made of standard normal noise."""

    def variance(self, z: Float[Tensor, "batch in"], *, prior: float | Scalar) -> Float[Tensor, "batch out"]:
        """Variance of each output theta z when theta ~ Normal(., (H + prior I)^-1)."""

    def covariance(self, z: Float[Tensor, "batch in"], *, prior: float | Scalar) -> Float[Tensor, "batch out out"]:
        """Covariance of the outputs theta z, of each row."""

    def scaled(self, factor: float) -> "Curvature":
        """factor H."""

    def tensors(self) -> dict[str, Tensor]:
        """What the value is made of: `type(self)(**tensors)` is equal to it."""


class Accumulator(Protocol):
    """Sums of a layer's generalised Gauss-Newton matrix over batches; what is summed may be reduced over machines."""

    def add(self, outputs: OutputCurvature, z: Float[Tensor, "batch in"]) -> None:
        """Count some rows: the curvature of their loss in the outputs theta z, and z."""

    def value(self) -> Curvature:
        """H = sum over rows of Lambda_n (x) z_n z_n', in this structure."""


class BlockCurvature(Curvature, Protocol):
    """H over one tensor of a network, seen as a block theta (group, out, in)."""

    @property
    def values(self) -> Float[Tensor, "*group out in"]:
        """The eigenvalues."""

    def coordinates(self, rows: Rows) -> Float[Tensor, "k batch own"]:
        """V' G for the gradients G of some rows: along eigenvectors, in the order of `values`."""

    def along(self, rows: Rows) -> Rows:
        """Rows whose gradients are these coordinates."""


class BlockAccumulator(Protocol):
    """Sums of one tensor's curvature over batches, columns included."""

    def add(self, rows: Rows) -> None:
        """Count some rows, with all their columns."""

    def value(self) -> BlockCurvature:
        """H = sum over rows and columns of g g', g = vec G, in this structure."""


class FlatCurvature(Protocol):
    """H over a flat vector of parameters; priors are a number, or one for every parameter."""

    def __matmul__(self, theta: Float[Tensor, "*b flat"]) -> Float[Tensor, "*b flat"]:
        """H theta."""

    def solve(self, theta: Float[Tensor, "*b flat"], *, prior: float | Tensor) -> Float[Tensor, "*b flat"]:
        """(H + diag(prior))^-1 theta."""

    def logdet(self, *, prior: float | Tensor) -> Scalar:
        """log det(H + diag(prior)), differentiable in the prior."""

    def sample(self, noise: Float[Tensor, "*b flat"], *, prior: float | Tensor) -> Float[Tensor, "*b flat"]:
        """Draws of Normal(0, (H + diag(prior))^-1), made of standard normal noise."""

    def coordinates(self, jacobian: Float[Tensor, "k batch flat"]) -> Float[Tensor, "k batch own"]:
        """The Jacobian along eigenvectors of H, in the order of `spectrum`."""

    @property
    def spectrum(self) -> Float[Tensor, " own"]:
        """The eigenvalues along `coordinates`."""

    def in_units(self, prior: float | Tensor) -> tuple["FlatCurvature", Tensor]:
        """D^-1/2 H D^-1/2 and D^1/2, D = diag(prior): the matrix to which the prior adds the identity."""

    def tensors(self) -> dict[str, Tensor]:
        """What the value is made of: `type(self)(**tensors)` is equal to it."""
