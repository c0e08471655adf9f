"""Thin networks side by side inside one: every layer wider, and its channels in groups that never mix."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from levelhead.declared import Membered

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class PackedLinear(nn.Module):
    """Group g of the outputs reads group g of the inputs: a block-diagonal linear layer, as one batched product."""

    def __init__(self, in_features: int, out_features: int, groups: int, *, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.groups = in_features, out_features, groups
        self.weight = nn.Parameter(torch.empty(groups, out_features // groups, in_features // groups))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The groups' outputs, one behind the other."""
        flat = rearrange(x.reshape(-1, x.shape[-1]), "b (g i) -> g b i", g=self.groups)
        y = rearrange(torch.bmm(flat, self.weight.mT), "g b o -> b (g o)")
        return (y if self.bias is None else y + self.bias).reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, groups={self.groups}"


class Unpack(Membered):
    """The channels of each member's group, out of features that hold all members': row k keeps block k."""

    def __init__(self, num_members: int, channel_axis: int) -> None:
        super().__init__()
        self.num_members = num_members
        self.channel_axis = channel_axis

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """Member-major rows of a K-th of the channels."""
        blocks = zip(self.by_member(x).unbind(0), range(self.num_members), strict=True)
        return torch.cat([z.chunk(self.num_members, dim=self.channel_axis)[k] for z, k in blocks])


def packed(layer: nn.Module, num_members: int, *, alpha: int, gamma: int, first: bool) -> nn.Module:
    """A layer alpha times as wide in num_members * gamma groups; a first layer reads what it always read, ungrouped.

    gamma is lowered to what the widths allow. New weights are normal, with the old ones' mean square times the ratio of
    fans, so that signals keep their size. Raises ValueError where members cannot share the channels.
    """
    if isinstance(layer, _BatchNorm):
        return _like_norm(layer, alpha)
    if isinstance(layer, nn.GroupNorm):
        return _group_norm(layer, num_members, alpha)
    linear = isinstance(layer, nn.Linear)
    names = ("in_features", "out_features") if linear else ("in_channels", "out_channels")
    inputs, outputs = (int(getattr(layer, name)) for name in names)
    own = 1 if linear else int(layer.groups)  # type: ignore[arg-type]
    wide_in, wide_out = inputs if first else alpha * inputs, alpha * outputs
    depthwise = own == inputs > 1
    groups = own if first else own * alpha if depthwise else own * num_members * gamma
    while not first and not depthwise and gamma > 1 and math.gcd(wide_in, wide_out) % groups:
        gamma -= 1
        groups = own * num_members * gamma
    if wide_in % groups or wide_out % groups or wide_out % num_members:
        raise ValueError(f"{num_members} members cannot share {wide_in} channels in and {wide_out} out")
    bias = layer.bias is not None
    new: nn.Module
    if linear:
        new = nn.Linear(wide_in, wide_out, bias) if groups == 1 else PackedLinear(wide_in, wide_out, groups, bias=bias)
    else:
        assert isinstance(layer, _ConvNd)
        settings = {n: getattr(layer, n) for n in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
        if isinstance(layer, nn.modules.conv._ConvTransposeNd):
            settings["output_padding"] = layer.output_padding
        new = type(layer)(wide_in, wide_out, groups=groups, bias=bias, **settings)
    fans = inputs / own * groups / wide_in
    with torch.no_grad():
        for name, scale in (("weight", math.sqrt(fans)), ("bias", 1.0)):
            old, fresh = getattr(layer, name), getattr(new, name)
            if isinstance(old, Tensor) and isinstance(fresh, Tensor):
                fresh.normal_().mul_(scale * float(old.detach().square().mean().sqrt()))
    return new


def _like_norm(layer: _BatchNorm, alpha: int) -> nn.Module:
    return type(layer)(alpha * layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)


def _group_norm(layer: nn.GroupNorm, num_members: int, alpha: int) -> nn.Module:
    each, rest = divmod(alpha * layer.num_channels, num_members)
    if rest:
        raise ValueError(f"{num_members} members cannot share {alpha * layer.num_channels} channels of a group norm")
    groups = num_members * math.gcd(each, layer.num_groups)
    return nn.GroupNorm(groups, alpha * layer.num_channels, layer.eps, layer.affine)
