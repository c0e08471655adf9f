"""A Gaussian prior whose filters also want to sum to zero, so that a brighter input moves few pre-activations."""

import math
from collections.abc import Mapping

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.network import Network
from levelhead.priors.independent import Gaussian
from levelhead.types import Scalar

STEEP = 35.0  # of the penalty by the sum's deviation: beyond, the Gaussian's tail has no number, and is exponential


class SummedFilters:
    """p(w) ~ prod N(w_i; 0, scale^2) prod_f exp(-strength |sum_k w_fk| / 2) over the filters f of a layer.

    A convolution's filter is its kernel for one channel in and one out; a linear layer's neuron is one filter. Given
    its sum S a filter is Gaussian, and S has the density N(S; 0, sigma^2) exp(-rate |S|) / E, sigma^2 = K scale^2.
    """

    def __init__(self, network: Network, name: str, *, scale: float, strength: float) -> None:
        self.layer = name
        self.names: tuple[str, ...] = (f"{name}.weight",)
        self.density, self.rate = Gaussian(scale), strength / 2
        self.linear = isinstance(network.get_submodule(name), nn.Linear)
        self.size = self._filters(network.get_parameter(self.names[0])).shape[-1]
        self.sigma = scale * math.sqrt(self.size)
        self.steepness = self.rate * self.sigma

    def energy(self, network: Network) -> Scalar:
        """See `Piece`."""
        filters = self._filters(network.get_parameter(self.names[0]))
        return self.density.energy(filters) + self.rate * filters.sum(-1).abs().sum()

    def log_z(self, network: Network) -> float:
        """See `Piece`; E = erfcx(rate sigma / sqrt 2) for each filter."""
        weight = network.get_parameter(self.names[0])
        kept = torch.special.erfcx(torch.tensor(self.steepness / math.sqrt(2), dtype=torch.float64))
        return weight.numel() * self.density.log_z() + weight.numel() / self.size * math.log(float(kept))

    def draw(self, network: Network) -> dict[str, Tensor]:
        """See `Piece`: the sums from their own density, then the weights given their sums."""
        weight = network.get_parameter(self.names[0])
        free = self.density.draw(self._filters(weight))
        moved = (self._sums(free[..., 0]) - free.sum(-1)) / self.size
        return {self.names[0]: (free + moved[..., None]).reshape_as(weight)}

    def variance(self, network: Network, directions: Float[Tensor, "input direction"]) -> Float[Tensor, " direction"]:
        """See `Piece`."""
        along = rearrange(directions, "(channel k) u -> channel k u", k=self.size).sum(1).square().sum(0) / self.size
        scale, hazard = self.density.scale, float(self._hazard())
        of_sum = self.sigma**2 * (1 + self.steepness**2 - self.steepness * hazard)
        return scale**2 * (directions.square().sum(0) - along) + of_sum / self.size * along

    def push(self, whitened: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Piece`."""
        return {name: self.density.scale * v for name, v in whitened.items()}

    def pull(self, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Piece`."""
        return self.push(gradient)

    def _filters(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "*filter k"]:
        """The weights of each filter in the last axis."""
        return weight if self.linear else weight.flatten(2)

    def _sums(self, like: Float[Tensor, "*filter"]) -> Float[Tensor, "*filter"]:
        """Draws of sums: |S| is a Gaussian of mean -rate sigma^2 cut at 0, drawn by the inverse of its tail."""
        share = torch.rand_like(like, dtype=torch.float64).clamp_min(torch.finfo(torch.float64).tiny)
        if self.steepness < STEEP:
            tail = torch.special.ndtr(torch.tensor(-self.steepness, dtype=torch.float64))
            size = self.sigma * (-torch.special.ndtri(share * tail) - self.steepness)
        else:
            size = -share.log() / self.rate
        return torch.where(torch.rand_like(like) < 0.5, -size, size).to(like)

    def _hazard(self) -> Tensor:
        """phi(z) / Phi(-z) at the steepness."""
        z = torch.tensor(self.steepness / math.sqrt(2), dtype=torch.float64)
        return math.sqrt(2 / math.pi) / torch.special.erfcx(z)
