"""A layer of which every member has its own copy."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.declared import Membered


class PerMember(Membered):
    """Member k's rows go through copy k: its own parameters, and its own statistics of its own rows.

    With BatchNorm inside, a network of members is exactly as many networks; one BatchNorm over all rows lets the rows
    of one member move the outputs of another.
    """

    def __init__(self, module: nn.Module, num_members: int) -> None:
        super().__init__()
        self.num_members = num_members
        self.members = nn.ModuleList([module, *(copy.deepcopy(module) for _ in range(num_members - 1))])

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """The copies' outputs, member-major as the rows came."""
        return torch.cat([member(z) for member, z in zip(self.members, self.by_member(x).unbind(0), strict=True)])


def fresh_heads(head: nn.Linear, num_members: int, width: int) -> PerMember:
    """A new linear head for each member, on features of `width`; from torch's global stream."""
    found = PerMember(nn.Linear(width, head.out_features, head.bias is not None), num_members)
    for member in found.members:
        member.reset_parameters()  # type: ignore[operator]
    return found
