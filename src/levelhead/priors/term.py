"""A prior at work: -log p(w) / N beside the loss, for training, for samplers, and for what wants draws of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.declared import Declared
from levelhead.forward import Forward, Objective
from levelhead.network import Network
from levelhead.priors.independent import Density
from levelhead.types import CannotCompose, Scalar

NO_WEIGHTS = (
    "{author}: no weight is left for the prior, for all layers either have a posterior of their own or want no decay. "
    "Leave it out; layers with a posterior get their prior from `elbo(prior_scale=...)`"
)


class Piece(Protocol):
    """The prior of some parameters, independent of the other pieces'."""

    names: tuple[str, ...]

    def energy(self, network: Network) -> Scalar:
        """-log density of the parameters as they are, without the constant."""

    def log_z(self, network: Network) -> float:
        """The constant: log density = -energy - log_z."""

    def draw(self, network: Network) -> dict[str, Tensor]:
        """A draw of the parameters, from torch's global stream."""

    def variance(self, network: Network, directions: Float[Tensor, "input direction"]) -> Float[Tensor, " direction"]:
        """Of w . u, for rows w of each weight and a unit vector u a column."""

    def push(self, whitened: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """R v: weights of coordinates in which a Gaussian prior is N(0, I)."""

    def pull(self, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """R' g: the gradient by these coordinates, of a gradient by weights."""


class Prior:
    """objective + energy(w) / N, energy = -log p(w) up to its constant, N the number of training rows.

    The term that a prior's spec starts. Samplers find it among `objective.terms` (see `forward.extend`) and may move in
    coordinates v with w = R v in which the prior is white, R linear and fixed for the fit. With Sigma the prior's
    covariance R R' = Sigma, so a momentum r ~ N(0, I) gives

        w <- w + step * push(r),      r <- r - step * pull(dU/dw),

    which is HMC with unit mass in v, or with mass Sigma^-1 in w: the same posterior, but one step size for stiff and
    soft directions. Priors that are not Gaussian are pushed by their scale.

    pieces    their names are disjoint; parameters in none of them have no prior, and push and pull leave them alone.
    num_rows  N.
    """

    def __init__(self, pieces: Sequence[Piece], num_rows: int) -> None:
        self.pieces, self.num_rows = tuple(pieces), num_rows

    def __call__(self, inner: Objective, forward: Forward) -> Scalar:
        """The objective and the prior's part."""
        loss = inner(forward)
        with torch.autocast(forward.network.device.type, enabled=False):
            return loss + self.energy(forward.network).to(loss.dtype) / self.num_rows

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that have a prior."""
        return tuple(name for piece in self.pieces for name in piece.names)

    def energy(self, network: Network) -> Scalar:
        """-log p(w) in nats, without the constant: 0 at the prior's mode."""
        return torch.stack([piece.energy(network) for piece in self.pieces]).sum()

    def log_prob(self, network: Network) -> Scalar:
        """log p(w) in nats, of the parameters as they are."""
        return -self.energy(network) - sum(piece.log_z(network) for piece in self.pieces)

    def draw(self, network: Network) -> dict[str, Tensor]:
        """Weights drawn from the prior, by name; from torch's global stream."""
        with torch.no_grad():
            return {name: w for piece in self.pieces for name, w in piece.draw(network).items()}

    def push(self, whitened: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """R v, by name; what has no prior stays as it is."""
        return self._each("push", whitened)

    def pull(self, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """R' g, by name; what has no prior stays as it is."""
        return self._each("pull", gradient)

    def _each(self, method: str, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = dict(given)
        for piece in self.pieces:
            found |= getattr(piece, method)({name: given[name] for name in piece.names})
        return found

    def variance(
        self, network: Network, name: str, directions: Float[Tensor, "input direction"]
    ) -> Float[Tensor, " direction"]:
        """Of w . u, for rows w of that weight and a unit vector u a column. Raises KeyError where it has no prior."""
        for piece in self.pieces:
            if name in piece.names:
                return piece.variance(network, directions)
        raise KeyError(f"{name!r} has no prior; there are {', '.join(self.names)}")

    def end_epoch(self, network: Network) -> None:
        """Nothing happens between epochs."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember: what a prior learned from data it learns again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class Independent:
    """One density for every element of some parameters."""

    def __init__(self, density: Density, names: Sequence[str]) -> None:
        self.density = density
        self.names: tuple[str, ...] = tuple(names)

    def energy(self, network: Network) -> Scalar:
        """See `Piece`."""
        return torch.stack([self.density.energy(network.get_parameter(name)) for name in self.names]).sum()

    def log_z(self, network: Network) -> float:
        """See `Piece`."""
        return self.density.log_z() * sum(network.get_parameter(name).numel() for name in self.names)

    def draw(self, network: Network) -> dict[str, Tensor]:
        """See `Piece`."""
        return {name: self.density.draw(network.get_parameter(name)) for name in self.names}

    def variance(self, network: Network, directions: Float[Tensor, "input direction"]) -> Float[Tensor, " direction"]:
        """See `Piece`."""
        return self.density.variance * directions.square().sum(0)

    def push(self, whitened: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Piece`."""
        return {name: self.density.scale * v for name, v in whitened.items()}

    def pull(self, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Piece`."""
        return self.push(gradient)


def independent(
    density: Density, network: Network, num_rows: int, *, author: str, besides: Iterable[Piece] = ()
) -> Prior:
    """The prior with `besides` on their parameters and `density` on all the rest.

    Parameters whose layer wants no weight decay (vectors of members, layers with a posterior) have no prior here.
    Raises CannotCompose where no parameter is left.
    """
    pieces = list(besides)
    taken = {name for piece in pieces for name in piece.names}
    without = undecayed(network)
    rest = [name for name, p in network.named_parameters() if name not in taken and p not in without]
    if rest:
        pieces.append(Independent(density, rest))
    if not pieces:
        raise CannotCompose(NO_WEIGHTS.format(author=author))
    return Prior(pieces, num_rows)


def undecayed(network: Network) -> set[nn.Parameter]:
    """The parameters whose layers ask for no weight decay."""
    found: set[nn.Parameter] = set()
    for module in network.modules():
        if isinstance(module, Declared):
            hints = module.hints
            found |= {p for name, p in module.named_parameters() if name in hints and not hints[name].decay}
    return found
