"""Rank-1 Bayesian networks: BatchEnsemble with a posterior over each member's vectors."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from levelhead.layers.fast_weights import INITS
from levelhead.layers.member_layers import with_members
from levelhead.layers.rank_one import RankOne
from levelhead.network import Network
from levelhead.types import Reference

WITHIN = ("all", "features", "head")


@dataclass(frozen=True)
class Rank1BNN:
    """W_k = W * (s_k r_k') with r_k and s_k Gaussian and W a point, for num_members members in one pass.

    Put the objective `elbo` behind it, which adds KL(q || N(1, prior_std^2)) / N; without it the standard deviations
    shrink to nothing. W has the sampler's weight decay, the vectors have none. Training draws the vectors for each row
    and member; a predictor draws num_samples times a member; eval() uses their means, and is then BatchEnsemble.

    num_members  K components of the posterior.
    num_samples  draws a member at prediction (1 for Gaussians in the authors' code).
    init         of the means: "sign" +1 or -1 at random (the authors' own), "normal" Normal(1, init_scale^2), "ones".
    std          of the first posterior: (p / (1 - p))^(1/2) at a dropout rate p of 0.001.
    prior_std    of the prior around 1.
    per_member_norm, fast_lr, within  as in BatchEnsemble.

    The KL is a mean over members, as the loss is: the objective is the mean of the members' bounds.
    Raises NoLayerReplaced without such layers, CannotCompose where another surgery declared another number of members.

    Dusenberry et al., arXiv 2005.07186.
    """

    reference: ClassVar[Reference] = Reference(
        "Dusenberry et al.",
        2020,
        arxiv="2005.07186",
        title="Efficient and Scalable Bayesian Neural Nets with Rank-1 Factors",
    )
    num_members: int = 4
    num_samples: int = 1
    init: str = "sign"
    init_scale: float = 0.5
    std: float = 0.0316
    prior_std: float = 0.1
    per_member_norm: bool = True
    fast_lr: float = 1.0
    within: str = "all"

    def __post_init__(self) -> None:
        for name in ("num_members", "num_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"Rank1BNN: {name} must be at least 1, got {getattr(self, name)}")
        if self.init not in INITS:
            raise ValueError(f"Rank1BNN: init must be one of {', '.join(map(repr, INITS))}; got {self.init!r}")
        for name in ("std", "prior_std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Rank1BNN: {name} must be positive, got {getattr(self, name)}")
        for name in ("init_scale", "fast_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"Rank1BNN: {name} must not be negative, got {getattr(self, name)}")
        if self.within not in WITHIN:
            raise ValueError(f"Rank1BNN: within must be one of {', '.join(map(repr, WITHIN))}; got {self.within!r}")

    def __call__(self, network: Network) -> Network:
        """The network with num_members members, each with a posterior."""
        new = with_members(
            network,
            self.num_members,
            self.layer,
            per_member_norm=self.per_member_norm,
            within=self.within,
            author="Rank1BNN",
        )
        return new.declare(num_samples=self.num_samples)

    def layer(self, module: nn.Module) -> RankOne:
        """A layer with random vectors."""
        return RankOne(
            module,
            self.num_members,
            init=self.init,
            init_scale=self.init_scale,
            std=self.std,
            prior_std=self.prior_std,
            fast_lr=self.fast_lr,
        )
