"""Packed-Ensembles: thin networks side by side in one, through grouped convolutions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from levelhead.declared import Membered
from levelhead.layers.packed import KINDS, Unpack, packed
from levelhead.layers.per_member import fresh_heads
from levelhead.network import Network
from levelhead.probe import evaluating
from levelhead.types import CannotCompose, Reference

MIXED = (
    "PackedEnsemble: this network mixes channels where no layer shows it (attention, concatenation, a norm over all "
    "channels), so its members would not be apart. Use batch_ensemble or film_ensemble, which work on any network"
)
UNFIT = (
    "PackedEnsemble: the network does not run with wider layers ({error}). Put packed_ensemble before surgeries that "
    "count channels, or use batch_ensemble, which works on any network"
)
NARROW = "PackedEnsemble: {name}: {error}; give an alpha or a num_members with which they can"
OWNED = "PackedEnsemble makes its own members of the channels: put it before surgeries that give layers members"
FROZEN = "PackedEnsemble makes new weights, and {name} is frozen: leave freezing to networks that keep their weights"
HEAD = "PackedEnsemble wants a linear head, got {kind}: put packed_ensemble before the surgery that changes the head"


@dataclass(frozen=True)
class PackedEnsemble:
    """num_members networks of width alpha / M each, as one network of grouped layers: one pass, about alpha^2 / M cost.

    Every width is multiplied by alpha, and every layer but the first has M * gamma groups; the head is one a member.
    Channels of different members never meet behind the first layer, BatchNorm included, so the members are M separate
    thin networks. alpha = M, gamma = 1 is a deep ensemble of the network itself. Weights are drawn anew: the widths are
    others. Weights of a layer: alpha^2 / (M gamma) times those of the network.

    num_members  M.
    alpha        a whole number: the factor on widths.
    gamma        groups inside each member; lowered where a layer's width does not allow it.

    Raises CannotCompose where the members cannot share a width, where channels mix out of sight (attention,
    concatenation), behind surgeries that give layers members, on frozen layers, and on heads that are not linear.

    Laurent et al., arXiv 2210.09184.
    """

    reference: ClassVar[Reference] = Reference(
        "Laurent et al.", 2023, arxiv="2210.09184", title="Packed-Ensembles for Efficient Uncertainty Estimation"
    )
    redraws: ClassVar[bool] = True  # other widths, other weights
    num_members: int = 4
    alpha: int = 2
    gamma: int = 1

    def __post_init__(self) -> None:
        for name in ("num_members", "alpha", "gamma"):
            if getattr(self, name) < 1:
                raise ValueError(f"PackedEnsemble: {name} must be at least 1, got {getattr(self, name)}")

    def __call__(self, network: Network) -> Network:
        """The network with num_members members."""
        self.check(network)
        layers, first = weight_layers(network)
        names: dict[nn.Module, str] = {}

        def match(name: str, module: nn.Module) -> bool:
            names.setdefault(module, name)
            return name in layers

        def make(module: nn.Module) -> nn.Module:
            name = names[module]
            try:
                return packed(
                    module, self.num_members, alpha=self.alpha, gamma=self.gamma, first=name in first
                ).requires_grad_(True)
            except ValueError as error:
                raise CannotCompose(NARROW.format(name=name, error=error)) from None

        try:
            wide = network.replace(match, make, author="PackedEnsemble")
        except RuntimeError as error:
            raise CannotCompose(UNFIT.format(error=str(error).partition("\n")[0])) from None
        if not self.apart(wide, layers):
            raise CannotCompose(MIXED)
        unpack = Unpack(self.num_members, network.channel)
        new = wide.declare(num_members=self.num_members).appended(unpack, name="unpack", author="PackedEnsemble")
        heads = fresh_heads(network.head, self.num_members, new.width)  # type: ignore[arg-type]  # checked
        return new.replace(lambda name, _: name == "head", lambda _: heads, within="head", author="PackedEnsemble")

    def check(self, network: Network) -> None:
        """Raise CannotCompose where no ensemble can be packed."""
        if network.layers(Membered) or network.num_members > 1:
            raise CannotCompose(OWNED)
        if type(network.head) is not nn.Linear:
            raise CannotCompose(HEAD.format(kind=type(network.head).__name__))
        for name, parameter in network.named_parameters():
            if not parameter.requires_grad:
                raise CannotCompose(FROZEN.format(name=name))

    def apart(self, wide: Network, layers: Mapping[str, nn.Module]) -> bool:
        """Whether nobody else's channels move when one member's weights do, for each member."""
        x = wide.signature.example(2).to(wide.device, next(wide.parameters()).dtype)
        with torch.no_grad(), evaluating(wide):
            before = wide.embed(x).chunk(self.num_members, dim=-1)
            for k in range(self.num_members):
                changed = wide.copy().eval()
                for name in layers:
                    for parameter in changed.get_submodule(name).parameters():
                        parameter.chunk(self.num_members)[k].mul_(-1.5).add_(0.1)
                after = changed.embed(x).chunk(self.num_members, dim=-1)
                if not all(torch.allclose(before[j], after[j], 1e-4, 1e-6) for j in range(self.num_members) if j != k):
                    return False
        return True


def weight_layers(network: Network) -> tuple[dict[str, nn.Module], frozenset[str]]:
    """The features' layers that have a width, by name, and those of them that read the input itself."""
    calls = network.trace().calls
    found = {call.name: call.module for call in calls if type(call.module) in KINDS}
    weights = [call for call in calls if call.name in found]
    first = {call.name for call in weights if call.source == weights[0].source}
    norms = {call.name: call.module for call in calls if isinstance(call.module, _BatchNorm | nn.GroupNorm)}
    return {**found, **norms}, frozenset(first)
