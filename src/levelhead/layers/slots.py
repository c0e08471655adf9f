"""One trunk that reads several inputs at once, one a member, and gives its features to all of them."""

import math
from collections import OrderedDict

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.declared import Membered, Stochastic


class Slots(nn.Sequential, Membered):
    """Rows of all members go in, one pass over a K-th as many rows is made, and rows of all members come out.

    trunk  stages, under their names. One of their layers is a `Joined`, which puts the members' inputs side by side.
    """

    def __init__(self, trunk: nn.Module, num_members: int) -> None:
        plain = type(trunk) is nn.Sequential
        super().__init__(OrderedDict(trunk._modules.items() if plain else [("trunk", trunk)]))  # type: ignore[arg-type]
        self.num_members = num_members

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """The trunk's features, the same for the rows that were read together."""
        self.by_member(x)  # raises where the rows are no multiple of the members
        for layer in self.modules():
            if isinstance(layer, Stochastic):  # the trunk has samples alone in its leading axis
                layer.blocks = max(1, layer.blocks // self.num_members)
        z = super().forward(x)
        if len(z) == len(x):  # no layer joins the rows yet, or there is one member
            return z
        return repeat(z, "rest ... -> (member rest) ...", member=self.num_members)


class Joined(nn.Module):
    """A first layer that reads the inputs of all members, their channels side by side."""

    def __init__(self, layer: nn.Module, num_members: int, channel_axis: int) -> None:
        super().__init__()
        self.num_members = num_members
        self.channel_axis = channel_axis
        self.layer = layer

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rest ..."]:
        """A K-th of the rows."""
        if self.channel_axis == -1:
            joined = rearrange(x, "(member rest) ... c -> rest ... (member c)", member=self.num_members)
        else:
            joined = rearrange(x, "(member rest) c ... -> rest (member c) ...", member=self.num_members)
        if joined.ndim == 4:  # the layout of all other maps
            joined = joined.contiguous(memory_format=torch.channels_last)
        out: Tensor = self.layer(joined)
        return out


def wider(layer: nn.Module, num_members: int) -> Joined:
    """A new first layer for num_members inputs. Its weights are normal, with a K-th of the old ones' mean square, so
    that its outputs keep their size. Raises TypeError for other layers, and for grouped convolutions."""
    new: nn.Module
    if type(layer) is nn.Linear:
        new = nn.Linear(num_members * layer.in_features, layer.out_features, layer.bias is not None)
    elif type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d) and layer.groups == 1:
        names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        settings = {name: getattr(layer, name) for name in names}
        inputs, outputs = num_members * int(layer.in_channels), layer.out_channels  # type: ignore[arg-type]
        new = type(layer)(inputs, outputs, bias=layer.bias is not None, **settings)
    else:
        raise TypeError(f"wants a linear layer or an ungrouped convolution, got {type(layer).__name__}")
    with torch.no_grad():
        rms = float(layer.weight.detach().square().mean().sqrt())  # type: ignore[operator]
        new.weight.normal_().mul_(rms / math.sqrt(num_members))  # type: ignore[operator]
        if isinstance(layer.bias, Tensor):
            new.bias.copy_(layer.bias)  # type: ignore[operator]
    return Joined(new, num_members, -1 if isinstance(layer, nn.Linear) else 1)
