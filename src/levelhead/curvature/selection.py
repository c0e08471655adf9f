"""A choice of a network's parameters, whole tensors or single weights, as one flat vector theta.

The order is that of `network.named_parameters()`, each tensor row by row. A subnetwork is any function of a network and
a task that gives sorted flat places in that order; specs of the family `subnetworks` are such functions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.curvature.capture import Watch, watched
from levelhead.curvature.places import places
from levelhead.curvature.rows import Rows
from levelhead.network import Network

Priors = Float[Tensor, " tensor"]


@dataclass(frozen=True, eq=False)
class Selection:
    """Tensors of a network and, of each, the chosen entries (as places in its block), or None for all of them."""

    watches: tuple[Watch, ...]
    entries: tuple[Int[Tensor, " entry"] | None, ...]

    @classmethod
    def of_names(cls, network: Network, names: Sequence[str]) -> "Selection":
        """Whole tensors."""
        watches = watched(network, names)
        return cls(watches, (None,) * len(watches))

    @classmethod
    def of_indices(cls, network: Network, indices: Int[Tensor, " selected"]) -> "Selection":
        """Sorted flat places in the network's parameters."""
        found = selected_watches(network, indices)
        entries = tuple(w.as_flat(torch.arange(w.place.size).reshape(w.block)).to(own.device)[own] for w, own in found)
        return cls(tuple(watch for watch, _ in found), entries)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names."""
        return tuple(watch.place.name for watch in self.watches)

    @property
    def sizes(self) -> list[int]:
        """How many numbers of each tensor are chosen."""
        return [w.place.size if e is None else len(e) for w, e in zip(self.watches, self.entries, strict=True)]

    @property
    def size(self) -> int:
        """How many numbers are chosen."""
        return sum(self.sizes)

    def theta(self) -> Float[Tensor, " flat"]:
        """The chosen weights, float64."""
        blocks = [watch.users[0][1].block(watch.tensor.detach()) for watch in self.watches]
        pairs = zip(self.watches, self.entries, blocks, strict=True)
        return torch.cat([w.as_flat(b) if e is None else b.flatten()[e] for w, e, b in pairs]).double()

    def jacobian(self, gone: Iterable[tuple[Watch, Rows]]) -> Float[Tensor, "k batch flat"]:
        """The rows' gradients, written out."""
        return torch.cat([self._gradient(watch, rows) for watch, rows in gone], dim=-1)

    def _gradient(self, watch: Watch, rows: Rows) -> Tensor:
        entries = self.entries[self.watches.index(watch)]
        return watch.as_flat(rows.gradients()) if entries is None else rows.selected(entries)

    def each(self, prior: Priors) -> Float[Tensor, " flat"]:
        """The prior of every number."""
        return prior.repeat_interleave(torch.tensor(self.sizes, device=prior.device))

    def weights(self, theta: Float[Tensor, "draw flat"]) -> dict[str, Float[Tensor, "draw ..."]]:
        """Draws of the chosen weights as the network's tensors, the others as they are."""
        found = {}
        for watch, entries, part in zip(self.watches, self.entries, theta.split(self.sizes, dim=-1), strict=True):
            flat = watch.tensor.detach().flatten().expand(len(theta), -1).clone()
            if entries is None:
                flat = part.to(flat)
            else:
                places = watch.as_block(torch.arange(watch.place.size, device=entries.device)).flatten()[entries]
                flat[:, places] = part.to(flat)
            found[watch.place.name] = flat.unflatten(1, watch.tensor.shape)
        return found


def selected_watches(
    network: Network, indices: Int[Tensor, " selected"]
) -> tuple[tuple[Watch, Int[Tensor, " own"]], ...]:
    """The tensors that hold the selected places, and which of their numbers these are, in the order of the tensor.

    Raises ValueError unless the places are sorted, unique and in range.
    """
    size = sum(p.numel() for p in network.parameters())
    if len(indices) == 0 or indices.diff().le(0).any() or int(indices[0]) < 0 or int(indices[-1]) >= size:
        raise ValueError(
            f"subset: wants sorted, unique places of the network's {size:,} parameters, at least one; got "
            f"{len(indices)} of them"
        )
    own = {
        place.name: chosen - place.start
        for place in places(network)
        if len(chosen := indices[(indices >= place.start) & (indices < place.stop)])
    }
    return tuple((watch, own[watch.place.name]) for watch in watched(network, list(own)))
