"""From a Gaussian over logits to classes, in closed form. Each gives logits, normalised by whoever takes them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def probit(f: Float[Tensor, "*batch class"], variance: Float[Tensor, "*batch class"]) -> Float[Tensor, "*batch class"]:
    """f_k / sqrt(1 + pi / 8 v_k) (MacKay, 1992). Keeps the label where all variances are equal."""
    return f / torch.sqrt(1 + math.pi / 8 * variance)


def mackay(
    f: Float[Tensor, "*batch class"], covariance: Float[Tensor, "*batch class class"]
) -> Float[Tensor, "*batch class"]:
    """Logits of p_k ~ 1 / sum_l exp(-(f_k - f_l) / sqrt(1 + pi / 8 Var(f_k - f_l)))."""
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    spread = variance.unsqueeze(-1) + variance.unsqueeze(-2) - 2 * covariance
    difference = f.unsqueeze(-1) - f.unsqueeze(-2)
    return -torch.logsumexp(-difference / torch.sqrt(1 + math.pi / 8 * spread.clamp_min(0)), dim=-1)


def bridge(
    f: Float[Tensor, "*batch class"], covariance: Float[Tensor, "*batch class class"]
) -> Float[Tensor, "*batch class"]:
    """Logits log alpha of the mean of the Dirichlet(alpha) that the Laplace bridge makes of Normal(f, covariance).

    First to zero sum: s = Sigma 1, t = 1's, f <- f - s (1'f) / t, Sigma <- Sigma - s s' / t. Then
    alpha_k = (1 - 2 / K + e^{f_k} / K^2 sum_l e^{-f_l}) / Sigma_kk.
    """
    num_classes = f.shape[-1]
    row_sums = covariance.sum(-1)
    total = row_sums.sum(-1, keepdim=True)
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    spread = total > 1e-12 * variance.sum(-1, keepdim=True)  # else the sum is zero already, up to rounding
    share = torch.where(spread, row_sums / torch.where(spread, total, 1.0), 0.0)
    f = f - share * f.sum(-1, keepdim=True)
    variance = variance - share * row_sums
    grown = f + torch.logsumexp(-f, dim=-1, keepdim=True) - 2 * math.log(num_classes)
    if num_classes > 2:
        grown = torch.logaddexp(grown, grown.new_tensor(1 - 2 / num_classes).log())
    return grown - variance.log()
