"""The linear layers and convolutions of a network that can have members, found by running an example."""

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from levelhead.declared import Membered
from levelhead.layers.fast_weights import LINEAR, FastWeights
from levelhead.layers.per_member import PerMember
from levelhead.network import Network
from levelhead.probe import evaluating

AFFINE = (nn.GroupNorm, nn.LayerNorm)
NOT_CALLED = "its weight is used without calling it, or not at all: shared by all members"
NOT_LINEAR = "a {kind} is not linear in its input on an example: vectors on inputs and outputs would not be a member"


def called_layers(network: Network) -> tuple[set[str], tuple[tuple[str, str], ...]]:
    """Names of the features' layers that an example calls and that can have members; the others, with the reason."""
    trace = network.trace()
    good: set[str] = set()
    skipped: dict[str, str] = {}
    for call, around in zip(trace.calls, trace.around(), strict=True):
        holders = [trace.calls[outer].module for outer in around]
        of_members = any(isinstance(holder, Membered) and not isinstance(holder, FastWeights) for holder in holders)
        if of_members or not isinstance(call.module, (*LINEAR, _BatchNorm)):
            continue
        known = type(call.module) in LINEAR or isinstance(call.module, _BatchNorm)
        if known or is_linear(call.module, call.input_shape):
            good.add(call.name)
        else:
            skipped[call.name] = NOT_LINEAR.format(kind=type(call.module).__name__)
    for name, module in network.features.named_modules(prefix="features"):
        if isinstance(module, LINEAR) and name not in good:
            skipped.setdefault(name, NOT_CALLED)
    return good, tuple(skipped.items())


def with_members(
    network: Network,
    num_members: int,
    layer: Callable[[nn.Module], nn.Module],
    *,
    per_member_norm: bool,
    per_member_affine: bool = False,
    within: str,
    author: str,
) -> Network:
    """The network with `layer` made of every linear layer and convolution that can have members, in one pass.

    per_member_norm    each member gets its own BatchNorm, too.
    per_member_affine  and its own scales and shifts of group and layer norms.
    within             "all", "features" or "head"; see `Network.replace`.
    """
    shapes, skipped = called_layers(network)
    if within == "head":
        skipped = ()
    norms = ((_BatchNorm,) if per_member_norm else ()) + (AFFINE if per_member_affine else ())
    wanted = (*LINEAR, *norms)
    owned = tuple(f"{n}." for n, m in network.named_modules() if isinstance(m, Membered))
    if per_member_affine:
        affine = (n for n, m in network.named_modules() if isinstance(m, AFFINE) and n.startswith("features."))
        shapes |= {name for name in affine if not name.startswith(owned)}

    def match(name: str, module: nn.Module) -> bool:
        in_head = name.partition(".")[0] == "head" and not name.startswith(owned)
        return isinstance(module, wanted) and (name in shapes or in_head)

    def make(module: nn.Module) -> nn.Module:
        return PerMember(module, num_members) if isinstance(module, norms) else layer(module)

    # Declared before, so that what is measured on the way runs with this many members.
    declared = network.copy().declare(num_members=num_members)
    return declared.replace(match, make, within=within, author=author, skipped=skipped)


def is_linear(layer: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """Whether a subclass of torch's layers computes a linear map and adds its bias, judged by one example."""
    plain = copy.deepcopy(layer)
    plain.register_parameter("bias", None)
    weight = next(layer.parameters())
    generator = torch.Generator().manual_seed(0)
    with evaluating(layer), evaluating(plain), torch.no_grad():
        x, y = torch.randn(2, *input_shape, generator=generator).to(weight)
        combined, bias = plain(x - 2 * y), layer(torch.zeros_like(x))
        tolerance = 1e-3 * float(combined.abs().max())
        linear = torch.allclose(plain(x) - 2 * plain(y), combined, rtol=0, atol=tolerance)
        return linear and torch.allclose(layer(x) - bias, plain(x), rtol=0, atol=tolerance)
