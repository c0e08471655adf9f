"""BatchEnsemble: members share every weight and own vectors that scale inputs and outputs of each layer."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.fast_weights import INITS, FastWeights
from levelhead.layers.member_layers import with_members
from levelhead.network import Network
from levelhead.types import Reference

WITHIN = ("all", "features", "head")
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
    per_member_affine  each member has its own scales and shifts of group and layer norms, whose statistics are of each
                     example anyway.
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
    per_member_affine: bool = False

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
        return with_members(
            network,
            self.num_members,
            self.layer,
            per_member_norm=self.per_member_norm,
            per_member_affine=self.per_member_affine,
            within=self.within,
            author="BatchEnsemble",
        )

    def layer(self, module: nn.Module) -> FastWeights:
        """A layer with the members' vectors."""
        return FastWeights(
            module,
            self.num_members,
            init=self.init,
            init_scale=self.init_scale,
            rank=self.rank,
            fast_lr=self.fast_lr,
        )
