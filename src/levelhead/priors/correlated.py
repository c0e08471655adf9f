"""A Gaussian prior in which the weights of a neuron are correlated: N(0, Sigma) for every row of a weight."""

import math
from collections.abc import Mapping

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.layers.gaussian_weights import GaussianWeights
from levelhead.network import Network
from levelhead.types import CannotCompose, Scalar

SINGULAR = (
    "{author}: the prior of {name} has no variance (to float64's precision) along {count} of {size} directions, as its "
    "inputs have none in training. Give a larger eps"
)


class Correlated:
    """w ~ N(0, Sigma) for each row w of a layer's weight, or of (weight, bias); a group of a convolution has its own.

    name         of the layer in the network.
    covariance   Sigma of each group, in the order of weight.flatten(1), the bias last.
    with_bias    whether the last of Sigma's axes is the bias.

    Of a layer with a posterior q the energy is the expectation E_q[-log p(w)], so that with the layer's own KL it stays
    a bound. Raises CannotCompose where Sigma is singular to float64.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        covariance: Float[Tensor, "group input input"],
        *,
        with_bias: bool,
        author: str,
    ) -> None:
        self.layer, self.with_bias = name, with_bias
        self.names: tuple[str, ...] = (f"{name}.weight", *((f"{name}.bias",) if with_bias else ()))
        variances, directions = torch.linalg.eigh(covariance)
        floor = variances.shape[-1] * torch.finfo(variances.dtype).eps * variances.amax(-1, keepdim=True)
        if bool((variances <= floor).any()):
            count = int((variances <= floor).sum())
            raise CannotCompose(SINGULAR.format(author=author, name=name, count=count, size=variances.numel()))
        self.variances, self.directions = variances, directions
        weight = network.get_parameter(self.names[0])
        scale = rearrange(variances.sqrt(), "g i -> g 1 i")
        self.root = (directions * scale).to(weight)  # R with R R' = Sigma
        self.inverse = (directions / scale).to(weight)  # of R, transposed

    @property
    def covariance(self) -> Float[Tensor, "group input input"]:
        """Sigma."""
        return (self.directions * rearrange(self.variances, "g i -> g 1 i")) @ self.directions.mT

    @property
    def precision(self) -> Float[Tensor, "group input input"]:
        """Sigma^-1: symmetric and positive definite."""
        return (self.directions / rearrange(self.variances, "g i -> g 1 i")) @ self.directions.mT

    def energy(self, network: Network) -> Scalar:
        """See `Piece`."""
        layer = network.get_submodule(self.layer)
        values = {name: network.get_parameter(name) for name in self.names}
        energy = 0.5 * (self._rows(values) @ self.inverse).square().sum()
        if isinstance(layer, GaussianWeights):
            spread = {self.names[0]: layer.weight_std}
            spread |= {self.names[1]: layer.bias_std} if self.with_bias else {}
            energy = energy + 0.5 * einsum(
                self._rows(spread).square(), self.inverse.square(), "group out input, group input white ->"
            )
        return energy

    def log_z(self, network: Network) -> float:
        """See `Piece`."""
        neurons = len(network.get_parameter(self.names[0])) // len(self.variances)
        return neurons * float(0.5 * self.variances.log().sum() + 0.5 * self.variances.numel() * math.log(2 * math.pi))

    def draw(self, network: Network) -> dict[str, Tensor]:
        """See `Piece`."""
        return self.push({name: torch.randn_like(network.get_parameter(name)) for name in self.names})

    def push(self, whitened: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Piece`."""
        return self._named(self._rows(whitened) @ self.root.mT, whitened)

    def pull(self, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Piece`."""
        return self._named(self._rows(gradient) @ self.root, gradient)

    def variance(self, network: Network, directions: Float[Tensor, "input direction"]) -> Float[Tensor, " direction"]:
        """Of w . u for each column u, without the bias; as a mean over groups."""
        size = len(directions)
        return einsum(directions, self.covariance[:, :size, :size], directions, "i a, g i j, j a -> g a").mean(0)

    def _rows(self, values: Mapping[str, Tensor]) -> Float[Tensor, "group out input"]:
        """The neurons' weights by group, the bias behind them."""
        rows = values[self.names[0]].flatten(1)
        if self.with_bias:
            rows = torch.cat([rows, values[self.names[1]][:, None]], 1)
        return rearrange(rows, "(group out) input -> group out input", group=len(self.variances))

    def _named(self, rows: Float[Tensor, "group out input"], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters whose neurons these are."""
        flat = rearrange(rows, "group out input -> (group out) input")
        if not self.with_bias:
            return {self.names[0]: flat.reshape_as(like[self.names[0]])}
        return {self.names[0]: flat[:, :-1].reshape_as(like[self.names[0]]), self.names[1]: flat[:, -1]}
