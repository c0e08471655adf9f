"""MIMO: one network reads several inputs at once and answers each with a head of its own."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.declared import Membered
from levelhead.layers.fast_weights import LINEAR
from levelhead.layers.per_member import fresh_heads
from levelhead.layers.slots import Joined, Slots, wider
from levelhead.network import Network
from levelhead.types import CannotCompose, NoLayerReplaced, Reference

OWNED = "MIMO makes one trunk of all members: put it before surgeries that give layers members, or leave those out"
HEAD = "MIMO wants a linear head, got {kind}: put mimo before the surgery that changes the head"
FIRST = "MIMO cannot widen the first layer: it {error}. Use batch_ensemble, which works on any network"
FROZEN = "MIMO draws the first layer anew, and it is frozen: leave it out of freezing"
UNFIT = "MIMO: the network does not run when its first layer joins the inputs ({error}). Use batch_ensemble instead"


@dataclass(frozen=True)
class MIMO:
    """f(x_1, ..., x_M) = M answers: inputs side by side on the channels, one trunk, one head a member.

    Train with the objective `mimo_batches`, which shows each member other images: subnetworks form, one for each slot.
    Without it all slots see the same image, and nothing but the heads differs. At prediction the image stands in every
    slot, and the members' beliefs are mixed: about the cost of one network. The first layer and the heads are drawn
    anew; everything between keeps its weights. Networks of little width lose accuracy as M grows.

    num_members  M slots. 3 for the paper's WRN-28-10, 2 for its ImageNet ResNet-50.

    Raises CannotCompose behind surgeries that give layers members, on heads that are not linear and first layers that
    are grouped or frozen, NoLayerReplaced without linear layers and convolutions. Surgeries behind it see the trunk as
    one layer of members: put those that change layers in front.

    Havasi et al., arXiv 2010.06610.
    """

    reference: ClassVar[Reference] = Reference(
        "Havasi et al.",
        2021,
        arxiv="2010.06610",
        title="Training Independent Subnetworks for Robust Prediction",
    )
    redraws: ClassVar[bool] = True  # the first layer and the heads
    num_members: int = 3

    def __post_init__(self) -> None:
        if self.num_members < 1:
            raise ValueError(f"MIMO: num_members must be at least 1, got {self.num_members}")

    def __call__(self, network: Network) -> Network:
        """The network with num_members members."""
        if network.layers(Membered) or network.num_members > 1:
            raise CannotCompose(OWNED)
        if type(network.head) is not nn.Linear:
            raise CannotCompose(HEAD.format(kind=type(network.head).__name__))
        weights = [call for call in network.trace().calls if isinstance(call.module, LINEAR)]
        if not weights:
            raise NoLayerReplaced("MIMO found no linear layer or convolution that could read several inputs")
        first = {call.name for call in weights if call.source == weights[0].source}
        slots = (
            network.copy()
            .declare(num_members=self.num_members)
            .replace(lambda name, _: name == "features", lambda trunk: Slots(trunk, self.num_members), author="MIMO")
        )
        if type(network.features) is not nn.Sequential:
            first = {f"features.trunk{name.removeprefix('features')}" for name in first}
        try:
            new = slots.replace(lambda name, _: name in first, self.joined, author="MIMO")
        except RuntimeError as error:
            raise CannotCompose(UNFIT.format(error=str(error).partition("\n")[0])) from None
        heads = fresh_heads(network.head, self.num_members, new.width)
        return new.replace(lambda name, _: name == "head", lambda _: heads, within="head", author="MIMO")

    def joined(self, layer: nn.Module) -> Joined:
        """The first layer for the inputs of all members."""
        if not all(parameter.requires_grad for parameter in layer.parameters()):
            raise CannotCompose(FROZEN)
        try:
            return wider(layer, self.num_members)
        except TypeError as error:
            raise CannotCompose(FIRST.format(error=error)) from None
