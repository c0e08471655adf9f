"""Masksembles: members that share every weight and see fixed, overlapping subsets of the channels."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.around import Around
from levelhead.layers.masks import Masks
from levelhead.layers.places import Place, before_weights, inside_blocks
from levelhead.network import Network
from levelhead.probe import Trace
from levelhead.types import Reference

PLACES = ("auto", "blocks", "layers", "head")


@dataclass(frozen=True)
class Masksembles:
    """z -> mask_k * z for member k in front of chosen layers, with binary masks drawn once: dropout made an ensemble.

    Each mask has m ones; all channels are in some mask; `scale` sets how much two masks have in common. The masks are
    part of the saved network. Every member sees every batch (the paper's own training gives each image to one member:
    add the objective `sub_batches`); predictions mix the members.

    num_members  n masks.
    scale        s >= 1: two masks share 1 / (2 s - 1) of their channels. 1 is the network itself, n times.
    where        "blocks"  in each residual block before its last convolution.
                 "layers"  before every convolution and linear layer but the first, the head included.
                 "head"    before the head alone.
                 "auto"    "blocks" where there are any, else "layers".

    Raises NoLayerReplaced where "blocks" finds none, CannotCompose where another surgery declared another number of
    members.

    Durasov et al., arXiv 2012.08334.
    """

    reference: ClassVar[Reference] = Reference(
        "Durasov et al.", 2021, arxiv="2012.08334", title="Masksembles for Uncertainty Estimation"
    )
    num_members: int = 4
    scale: float = 2.0
    where: str = "auto"

    def __post_init__(self) -> None:
        if self.num_members < 1:
            raise ValueError(f"Masksembles: num_members must be at least 1, got {self.num_members}")
        if self.scale < 1:
            raise ValueError(f"Masksembles: scale must be at least 1 (masks of ones), got {self.scale}")
        if self.where not in PLACES:
            raise ValueError(f"Masksembles: where must be one of {', '.join(map(repr, PLACES))}; got {self.where!r}")

    def __call__(self, network: Network) -> Network:
        """The network with num_members members."""
        trace = network.trace()
        where = self.where
        if where == "auto":
            where = "blocks" if inside_blocks(trace) else "layers"
        new = network.copy().declare(num_members=self.num_members)
        places = self.places(where, trace)
        if places or where == "blocks":
            new = self.inserted(new, places)
        if where != "blocks":
            new = new.appended(self.layer(new.width, -1), name="masks", author="Masksembles")
        return new

    def places(self, where: str, trace: Trace) -> tuple[Place, ...]:
        """Where masks go inside the features."""
        return {"blocks": inside_blocks, "layers": before_weights}.get(where, lambda _: ())(trace)

    def inserted(self, network: Network, places: tuple[Place, ...]) -> Network:
        """Masks in front of some modules."""
        known = {place.name: place for place in places}
        names: dict[nn.Module, str] = {}

        def match(name: str, module: nn.Module) -> bool:
            names[module] = name
            return name in known

        def make(module: nn.Module) -> nn.Module:
            place = known[names[module]]
            return Around(module, before=self.layer(place.channels, place.channel_axis))

        return network.replace(match, make, inside=True, author="Masksembles")

    def layer(self, channels: int, channel_axis: int) -> Masks:
        """New masks for so many channels."""
        return Masks(channels, self.num_members, scale=self.scale, channel_axis=channel_axis)
