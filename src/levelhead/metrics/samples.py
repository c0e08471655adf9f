"""Proper scores of draws from a predictive, where there is no density: CRPS and energy score.

`fair` scores do not depend on the number of draws on average, and are the ones to compare ensembles of different size
by. The plain ones score the draws' own distribution, which few draws make look worse than what they are drawn from.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.types import Scalar


def sample_crps(
    draws: Float[Tensor, "draw *batch target"], y: Float[Tensor, "*batch target"], *, fair: bool = True
) -> Scalar:
    """CRPS mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 M (M - 1)), of each target by itself, in target units.

    Not `fair` divides by 2 M^2: one draw then gives |x - y|, while the fair form needs two. O(M log M): over the sorted
    draws, sum_ij |x_i - x_j| = 2 sum_i (2 i - M - 1) x_(i). The fair form equals the probability weighted moments'
    ("pwm"). Ferro 2014; Zamo and Naveau 2018.
    """
    num = _enough(draws, fair)
    draws, y = draws.double(), y.double()
    weight = 2 * torch.arange(1, num + 1, dtype=torch.float64, device=draws.device) - num - 1
    spread = torch.tensordot(weight, draws.sort(dim=0).values, dims=([0], [0])) / (num * (num - 1 if fair else num))
    return ((draws - y).abs().mean(0) - spread).mean()


def energy_score(
    draws: Float[Tensor, "draw *batch target"], y: Float[Tensor, "*batch target"], *, fair: bool = True
) -> Scalar:
    """Mean over rows of mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 M (M - 1)) with Euclidean norms over targets.

    The CRPS of a whole vector: for one target they are equal. Time grows with the square of the draws. Gneiting and
    Raftery 2007.
    """
    num = _enough(draws, fair)
    draws = rearrange(draws.double(), "draw ... target -> draw (...) target")
    y = rearrange(y.double(), "... target -> (...) target")
    spread = torch.zeros(len(y), dtype=torch.float64, device=y.device)
    for i in range(num - 1):
        spread = spread + (draws[i + 1 :] - draws[i]).norm(dim=-1).sum(0)
    return ((draws - y).norm(dim=-1).mean(0) - spread / (num * (num - 1 if fair else num))).mean()


def _enough(draws: Tensor, fair: bool) -> int:
    if len(draws) < (2 if fair else 1):
        raise ValueError(f"draws: wants at least {2 if fair else 1} on the first axis, got {len(draws)}")
    return len(draws)
