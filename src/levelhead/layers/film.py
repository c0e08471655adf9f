"""Feature-wise linear modulation with one scale and one shift a member: what the members of a FiLM-Ensemble own."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.declared import Hint
from levelhead.layers.per_member import PerMember

INITS = ("xavier", "bernoulli", "normal", "copy")


class Affine(nn.Module):
    """gamma * x + beta, one pair a channel along an axis; for networks that have no norm to modulate."""

    def __init__(self, channels: int, channel_axis: int = 1) -> None:
        super().__init__()
        self.channel_axis = channel_axis
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The scaled and shifted map."""
        shape = [1] * x.ndim
        shape[self.channel_axis] = -1
        return torch.addcmul(self.bias.reshape(shape), x, self.weight.reshape(shape))


class FiLM(PerMember):
    """A norm of which every member has a copy, statistics included, with scales gamma_k and shifts beta_k that differ.

    module  a norm with `weight` and `bias` of shape (channel,), or an `Affine`.
    init    of gamma and beta, C channels and K members: "xavier" uniform on +-gain sqrt(6 / (K + C)), "bernoulli" +gain
            or -gain at random, "normal" the module's own plus Normal(0, gain^2), "copy" the module's own.
    decay   whether gamma and beta have weight decay, which draws the members together.
    """

    def __init__(self, module: nn.Module, num_members: int, *, init: str, gain: float, decay: bool) -> None:
        super().__init__(module, num_members)
        if init not in INITS:
            raise ValueError(f"FiLM: init must be one of {', '.join(map(repr, INITS))}; got {init!r}")
        self.decay = decay
        for member in self.members:
            for parameter in (member.weight, member.bias):
                assert isinstance(parameter, Tensor), "a norm with a scale and a shift"
                with torch.no_grad():
                    parameter.copy_(_drawn(parameter, init, gain, num_members))

    @property
    def hints(self) -> Mapping[str, Hint]:  # type: ignore[override]
        """No weight decay, unless asked for."""
        names = (f"members.{k}.{name}" for k in range(self.num_members) for name in ("weight", "bias"))
        return dict.fromkeys(names, Hint(decay=self.decay))

    def __getattr__(self, name: str) -> Any:
        """What is not here is the norm's: its eps, its number of channels."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            members: Any = super().__getattr__("members")
            return getattr(members[0], name)


def _drawn(own: Tensor, init: str, gain: float, num_members: int) -> Tensor:
    if init == "xavier":
        return gain * math.sqrt(6 / (num_members + len(own))) * (2 * torch.rand(own.shape) - 1)
    if init == "bernoulli":
        return gain * (2.0 * torch.randint(2, own.shape) - 1)
    if init == "normal":
        return own.detach() + gain * torch.randn(own.shape).to(own)
    return own.detach().clone()
