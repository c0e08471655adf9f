"""Members whose vectors are random: a Gaussian posterior over what scales a layer's inputs and outputs."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from levelhead.declared import Hint, Posterior
from levelhead.layers.fast_weights import FastWeights
from levelhead.layers.gaussian_weights import softplus_inverse
from levelhead.types import Scalar

LARGEST = 10.0  # of a drawn factor: the tail of a wide posterior must not blow up the features


class RankOne(FastWeights, Posterior):
    """y = s_k * module(r_k * x) + b_k with r_k ~ N(r, softplus(r_rho)^2) and s_k likewise, for member k.

    Training draws r and s for each row of each member; at prediction a sample is one draw for all rows. At rest the
    means are used, as in `FastWeights`. Draws are cut at +-10.

    std    of the first posterior. prior_std  of the prior N(1, prior_std^2) of every element of r and s.
    """

    r_rho: Float[nn.Parameter, "1 member channel"]
    s_rho: Float[nn.Parameter, "1 member out"]

    def __init__(
        self,
        module: nn.Module,
        num_members: int,
        *,
        init: str,
        init_scale: float,
        std: float,
        prior_std: float,
        fast_lr: float,
    ) -> None:
        super().__init__(module, num_members, init=init, init_scale=init_scale, fast_lr=fast_lr)
        self.prior_std = prior_std
        del self.module  # parameters registered behind it would be looked up in it
        self.r_rho = nn.Parameter(torch.full_like(self.r, softplus_inverse(std)))
        self.s_rho = nn.Parameter(torch.full_like(self.s, softplus_inverse(std)))
        self.module = module

    @property
    def hints(self) -> Mapping[str, Hint]:  # type: ignore[override]
        """The vectors' hints, for their standard deviations too."""
        return {**self.own_hints, "r_rho": self.own_hints["r"], "s_rho": self.own_hints["s"]}

    def forward(self, x: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows ..."]:
        """All members' outputs, member-major as the rows came."""
        if not self.drawing:
            return super().forward(x)
        z = self.by_member(x)
        r, s = (self.factors(mean, rho, z) for mean, rho in ((self.r, self.r_rho), (self.s, self.s_rho)))
        rows = rearrange(z * _placed(r, z.ndim, self.channel_axis), "member rest ... -> (member rest) ...")
        y = rearrange(self.module(rows), "(member rest) ... -> member rest ...", member=self.num_members)
        y = y * _placed(s, y.ndim, self.channel_axis).to(y.dtype)
        if self.bias is not None:
            y = y + self.along(self.bias, y.ndim).to(y.dtype)
        return rearrange(y, "member rest ... -> (member rest) ...")

    def factors(self, mean: Tensor, rho: Tensor, z: Tensor) -> Float[Tensor, "member rest channel"]:
        """Draws of one vector for the rows of z."""
        rest = z.shape[1]
        draws = rest if self.training else max(1, self.blocks // self.num_members)
        noise = torch.randn(self.num_members, draws, mean.shape[-1], dtype=mean.dtype, device=mean.device)
        drawn = (mean[0][:, None] + F.softplus(rho[0])[:, None] * noise).clamp(-LARGEST, LARGEST)
        return repeat(drawn, "member draw c -> member (draw b) c", b=rest // draws).to(z.dtype)

    def kl(self, prior_scale: float | None) -> Scalar:
        """KL(q || N(1, prior_std^2)) of r and s, summed over elements, as a mean over the members, in nats.

        A mean, because the members' bounds are averaged as their losses are. prior_scale replaces prior_std if given.
        """
        prior = self.prior_std if prior_scale is None else prior_scale
        total = torch.zeros((), dtype=self.r.dtype, device=self.r.device)
        for mean, rho in ((self.r, self.r_rho), (self.s, self.s_rho)):
            std = F.softplus(rho)
            squares = (std.square() + (mean - 1).square()) / (2 * prior**2)
            total = total + (math.log(prior) - std.log() + squares - 0.5).sum()
        return total / self.num_members


def _placed(vectors: Float[Tensor, "member rest channel"], ndim: int, channel_axis: int) -> Tensor:
    """The vectors with axes of size one for the places of a row."""
    ones = (1,) * (ndim - 3)
    members, rest, channels = vectors.shape
    last = (*ones, channels) if channel_axis == -1 else (channels, *ones)
    return vectors.reshape(members, rest, *last)
