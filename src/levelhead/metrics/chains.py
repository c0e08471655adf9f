"""Whether Markov chains agree, and what their draws are worth: R-hat and effective sample size.

Both after Vehtari et al. 2021 (arXiv 1903.08008): each chain is split in two, values are replaced by the normal scores
of their ranks, so that heavy tails and chains of different spread are seen too. Every quantity by itself.
"""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

TAIL = 0.05  # the quantiles whose indicator functions make the tail's sample size
Part = Literal["bulk", "tail"]


def rhat(draws: Float[Tensor, "chain draw *quantity"]) -> Float[Tensor, "*quantity"]:
    """Rank-normalised split R-hat: sqrt of (pooled variance / variance within chains), the worse of place and scale.

    R = sqrt((n - 1) / n + B / (n W)), once of normal scores and once of those of |x - median|; about 1 where chains
    agree, and 1.01 is the usual limit. One chain is compared with itself, half against half. NaN for constants.
    Raises ValueError for fewer than four draws a chain.
    """
    halves = split(_enough(draws, "rhat"))
    folded = (halves - halves.flatten(0, 1).quantile(0.5, dim=0)).abs()
    return torch.maximum(_rhat(normal_scores(halves)), _rhat(normal_scores(folded)))


def ess(draws: Float[Tensor, "chain draw *quantity"], *, part: Part = "bulk") -> Float[Tensor, "*quantity"]:
    """How many independent draws would know as much: chains * draws / (1 + 2 * sum of autocorrelations).

    part  "bulk": of normal scores, for means. "tail": the less of the two for the 5 % and 95 % quantiles.

    The sum is Geyer's initial monotone sequence over pairs of lags, of correlations pooled over half chains; at most
    S log10 S for S draws. NaN for constants. Raises ValueError for fewer than four draws a chain.
    """
    halves = split(_enough(draws, "ess"))
    if part == "bulk":
        return _ess(normal_scores(halves))
    pooled = halves.flatten(0, 1)
    low, high = (_ess((halves <= pooled.quantile(q, dim=0)).double()) for q in (TAIL, 1 - TAIL))
    return torch.minimum(low, high)


def split(draws: Float[Tensor, "chain draw *quantity"]) -> Float[Tensor, "half kept *quantity"]:
    """Each chain as two, in float64; of an odd number of draws the one in the middle is left out."""
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]]).double()


def normal_scores(draws: Float[Tensor, "chain draw *quantity"]) -> Float[Tensor, "chain draw *quantity"]:
    """Phi^-1((rank - 3/8) / (S + 1/4)), ranks among all S draws of all chains; equal values share their mean rank."""
    flat = rearrange(draws, "chain draw ... -> (...) (chain draw)").contiguous()
    ordered = flat.sort(dim=1).values
    below, upto = (torch.searchsorted(ordered, flat, right=right) for right in (False, True))
    rank = (below + upto + 1).double() / 2
    scores = torch.special.ndtri((rank - 0.375) / (flat.shape[1] + 0.25))
    return rearrange(scores, "q (chain draw) -> chain draw q", chain=len(draws)).reshape(draws.shape)


def _rhat(draws: Tensor) -> Tensor:
    num = draws.shape[1]
    within = draws.var(dim=1).mean(0)
    between = draws.mean(1).var(dim=0)  # B / n
    return ((num - 1) / num + between / within).sqrt()


def _ess(draws: Tensor) -> Tensor:
    """Effective sample size by Geyer's initial monotone sequence."""
    chains, num = draws.shape[:2]
    within = draws.var(dim=1).mean(0)
    pooled = (num - 1) / num * within + draws.mean(1).var(dim=0)
    correlation = 1 - (within - _autocovariance(draws).mean(0) * num / (num - 1)) / pooled
    correlation[0] = 1.0
    pairs = rearrange(correlation[: num // 2 * 2], "(pair two) ... -> pair two ...", two=2).sum(1)
    going = (pairs > 0).cumprod(0)  # up to the first pair that is not positive
    monotone = pairs.cummin(0).values * going
    total = chains * num
    tau = (2 * monotone.sum(0) - 1).clamp_min(1 / torch.log10(torch.tensor(float(total))))
    return total / tau


def _autocovariance(draws: Tensor) -> Tensor:
    """Of each chain at every lag, over the chain's own mean, divided by the number of draws: by a padded FFT."""
    num = draws.shape[1]
    spectrum = torch.fft.rfft(draws - draws.mean(1, keepdim=True), n=2 * num, dim=1).abs().square()
    return torch.fft.irfft(spectrum, n=2 * num, dim=1)[:, :num] / num


def _enough(draws: Tensor, asker: str) -> Tensor:
    if draws.ndim < 2 or draws.shape[1] < 4:
        raise ValueError(f"{asker}: draws wants (chain, draw, ...) with at least 4 draws, got {tuple(draws.shape)}")
    return draws
