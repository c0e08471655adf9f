"""BatchEnsemble: members share every weight and own vectors that scale inputs and outputs of each layer."""

import copy
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from levelhead.declared import Membered
from levelhead.layers.fast_weights import CONVOLUTIONS, INITS, TRANSPOSED, FastWeights
from levelhead.layers.per_member import PerMember
from levelhead.network import Network
from levelhead.probe import evaluating
from levelhead.types import Reference

LINEAR = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
WITHIN = ("all", "features", "head")
NOT_CALLED = "its weight is used without calling it, or not at all: shared by all members"
NOT_LINEAR = "a {kind} is not linear in its input on an example: vectors on inputs and outputs would not be a member"
SAME_MEMBERS = (
    "BatchEnsemble(init='ones') starts all members alike, and they see the same batches: without a layer that draws "
    "they stay alike for ever. Use init='normal' or 'sign', or put MCDropout() before it"
)


@dataclass(frozen=True)
class BatchEnsemble:
    """W_k = W * (s_k r_k') in every linear layer and convolution, for num_members members in one pass.

    r_k scales the inputs and s_k the outputs, one bias a member, outside the scaling (`layers.fast_weights`); the head
    included. Every member sees every batch; the loss is the mean of the members' losses; predictions mix the members.
    Weights are kept, so that a pretrained network is a start: then init_scale should be small, and "sign" would destroy
    what it knows.

    num_members      K.
    init             of r and s: "normal" Normal(1, init_scale^2), "sign" +1 or -1 at random (the paper's own), "ones"
                     (members that never part, unless a layer draws; a warning says so).
    init_scale       standard deviation of "normal": 0.5 in the authors' later code, for CIFAR and ImageNet.
    rank             pairs of vectors a member: W_k = W * sum_q s_qk r_qk'.
    per_member_norm  each member has its own BatchNorm, statistics of its own rows included: the ensemble is then
                     exactly as many networks. False: one BatchNorm over all rows, as the published numbers have it.
    fast_lr          factor on the learning rate of r, s and b (0.25 in the authors' ImageNet run). They have no weight
                     decay.
    within           "all", "features" or "head".

    Raises NoLayerReplaced without such layers, CannotCompose where another surgery declared another number of members.

    Wen, Tran & Ba, arXiv 2002.06715.
    """

    reference: ClassVar[Reference] = Reference(
        "Wen, Tran and Ba",
        2020,
        arxiv="2002.06715",
        title="BatchEnsemble: An Alternative Approach to Efficient Ensemble and Lifelong Learning",
    )
    num_members: int = 4
    init: str = "normal"
    init_scale: float = 0.5
    rank: int = 1
    per_member_norm: bool = True
    fast_lr: float = 0.5
    within: str = "all"

    def __post_init__(self) -> None:
        for name, value in (("num_members", self.num_members), ("rank", self.rank)):
            if value < 1:
                raise ValueError(f"BatchEnsemble: {name} must be at least 1, got {value}")
        if self.init not in INITS:
            raise ValueError(f"BatchEnsemble: init must be one of {', '.join(map(repr, INITS))}; got {self.init!r}")
        for name, number in (("init_scale", self.init_scale), ("fast_lr", self.fast_lr)):
            if number < 0:
                raise ValueError(f"BatchEnsemble: {name} must not be negative, got {number}")
        if self.within not in WITHIN:
            raise ValueError(
                f"BatchEnsemble: within must be one of {', '.join(map(repr, WITHIN))}; got {self.within!r}"
            )

    def __call__(self, network: Network) -> Network:
        """The network with num_members members."""
        if self.init == "ones" and self.num_members > 1 and not network.stochastic:
            warnings.warn(SAME_MEMBERS, stacklevel=2)
        shapes, skipped = called_layers(network)
        if self.within == "head":
            skipped = ()
        wanted = (*LINEAR, _BatchNorm) if self.per_member_norm else LINEAR

        def match(name: str, module: nn.Module) -> bool:
            return isinstance(module, wanted) and (name in shapes or name.partition(".")[0] == "head")

        def make(module: nn.Module) -> nn.Module:
            if isinstance(module, _BatchNorm):
                return PerMember(module, self.num_members)
            return FastWeights(
                module,
                self.num_members,
                init=self.init,
                init_scale=self.init_scale,
                rank=self.rank,
                fast_lr=self.fast_lr,
            )

        # Declared before, so that what is measured on the way runs with this many members.
        declared = network.copy().declare(num_members=self.num_members)
        return declared.replace(match, make, within=self.within, author="BatchEnsemble", skipped=skipped)


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
