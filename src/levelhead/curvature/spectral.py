"""A curvature matrix over a flat vector of parameters by its eigenpairs: all of them, or the largest."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from levelhead.types import Scalar


@dataclass(frozen=True, eq=False)
class Spectral:
    """H = V diag(values) V', V' V = I; with fewer columns than parameters, the rest of H is taken as zero.

    Priors are a number, or one for every parameter: then H is decomposed afresh in units of the prior.
    """

    vectors: Float[Tensor, "flat k"]
    values: Float[Tensor, " k"]

    def __matmul__(self, theta: Float[Tensor, "*b flat"]) -> Float[Tensor, "*b flat"]:
        """H theta."""
        return ((theta @ self.vectors) * self.values) @ self.vectors.T

    def solve(self, theta: Float[Tensor, "*b flat"], *, prior: float | Tensor) -> Float[Tensor, "*b flat"]:
        """(H + diag(prior))^-1 theta, by Woodbury: theta / p less what the eigenvectors take away."""
        scaled, units = self.in_units(prior)
        found = theta / units
        taken = scaled.values / (1 + scaled.values)
        return (found - ((found @ scaled.vectors) * taken) @ scaled.vectors.T) / units

    def logdet(self, *, prior: float | Tensor) -> Scalar:
        """log det(H + diag(prior)), differentiable in the prior."""
        prior = torch.as_tensor(prior, dtype=self.values.dtype, device=self.values.device)
        size, rank = self.vectors.shape
        if prior.ndim == 0:
            return (self.values + prior).log().sum() + (size - rank) * prior.log()
        root = self.vectors * self.values.sqrt() / prior.sqrt()[:, None]
        gram = torch.eye(rank, dtype=root.dtype, device=root.device) + root.T @ root
        return prior.log().sum() + 2 * torch.linalg.cholesky(gram).diagonal().log().sum()

    def sample(self, noise: Float[Tensor, "*b flat"], *, prior: float | Tensor) -> Float[Tensor, "*b flat"]:
        """Draws of Normal(0, (H + diag(prior))^-1), made of standard normal noise."""
        scaled, units = self.in_units(prior)
        return scaled.shrunk(noise) / units

    def coordinates(self, jacobian: Float[Tensor, "k batch flat"]) -> Float[Tensor, "k batch own"]:
        """See `FlatCurvature.coordinates`. V' J, and behind it what the eigenvectors leave of J."""
        vectors = self.vectors.to(jacobian)
        along = jacobian @ vectors
        return along if self.complete else torch.cat([along, jacobian - along @ vectors.T], dim=-1)

    @property
    def spectrum(self) -> Float[Tensor, " own"]:
        """See `FlatCurvature.spectrum`."""
        return self.values if self.complete else torch.cat([self.values, self.values.new_zeros(len(self.vectors))])

    @property
    def complete(self) -> bool:
        """Whether these are all eigenpairs."""
        return self.vectors.shape[0] == self.vectors.shape[1]

    def in_units(self, prior: float | Tensor) -> tuple["Spectral", Tensor]:
        """See `FlatCurvature.in_units`."""
        if not isinstance(prior, Tensor) or prior.ndim == 0:
            return Spectral(self.vectors, self.values / prior), torch.as_tensor(prior).to(self.values).sqrt()
        units = prior.to(self.values).sqrt()
        left, singular, _ = torch.linalg.svd(self.vectors * self.values.sqrt() / units[:, None], full_matrices=False)
        return Spectral(left, singular.square()), units

    def shrunk(self, theta: Float[Tensor, "*b flat"]) -> Float[Tensor, "*b flat"]:
        """(I + H)^-1/2 theta."""
        coordinates = theta @ self.vectors
        return theta + (coordinates * ((1 + self.values).rsqrt() - 1)) @ self.vectors.T

    def tensors(self) -> dict[str, Tensor]:
        """What the value is made of."""
        return {"vectors": self.vectors, "values": self.values}
