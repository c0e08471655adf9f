"""Patch accuracy versus patch uncertainty: is what is said with certainty right, and what is wrong uncertain?"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

STEPS = 21


class PAvPU(NamedTuple):
    """Shares at each threshold; a row is certain where its uncertainty is at most that. NaN where nothing is counted.

    pavpu  (accurate and certain + inaccurate and uncertain) / all: depends on the threshold, hence a curve.
    accurate_if_certain, uncertain_if_inaccurate  the two conditional probabilities, both to be high.
    """

    threshold: Float[Tensor, " threshold"]
    pavpu: Float[Tensor, " threshold"]
    accurate_if_certain: Float[Tensor, " threshold"]
    uncertain_if_inaccurate: Float[Tensor, " threshold"]


def pavpu(
    uncertainty: Float[Tensor, " row"],
    accurate: Bool[Tensor, " row"],
    *,
    thresholds: Float[Tensor, " threshold"] | None = None,
) -> PAvPU:
    """The curve over thresholds, by default 21 evenly spaced from the least to the greatest uncertainty.

    Rows are examples, pixels or patches (`patches`). Mukhoti and Gal, arXiv 1811.12709.
    """
    if len(uncertainty) == 0 or bool(uncertainty.isnan().any()):
        raise ValueError(f"uncertainty: wants at least one row and no NaN, got {len(uncertainty)} rows")
    u = uncertainty.double()
    if thresholds is None:
        low, high = u.aminmax()
        thresholds = low + (high - low) * torch.linspace(0, 1, STEPS, dtype=torch.float64, device=u.device)
        thresholds[-1] = high  # exactly: the rounding of the product must not leave the last row uncertain
    certain = u <= thresholds.to(u.device, torch.float64)[:, None]
    both = (accurate & certain).sum(-1)
    neither = (~accurate & ~certain).sum(-1)
    return PAvPU(
        thresholds.double(),
        (both + neither).double() / len(u),
        both / certain.sum(-1).double(),
        neither / (~accurate).sum().double(),
    )


class Patches(NamedTuple):
    """Mean uncertainty of each patch, and whether enough of its sites are right; patches without a site left out."""

    uncertainty: Float[Tensor, " patch"]
    accurate: Bool[Tensor, " patch"]


def patches(
    uncertainty: Float[Tensor, "image h w"],
    correct: Bool[Tensor, "image h w"],
    *,
    size: int = 4,
    threshold: float = 0.5,
    counts: Bool[Tensor, "image h w"] | None = None,
) -> Patches:
    """Maps cut into squares of `size` sites; those at the lower and right border may be smaller.

    A patch is accurate where at least `threshold` of its sites are right. `counts` is False at void sites.
    """
    if size < 1:
        raise ValueError(f"size: wants at least 1 site, got {size}")
    weight = torch.ones_like(correct, dtype=torch.float64) if counts is None else counts.double()
    sites = _summed(weight, size)
    kept = sites > 0
    mean_uncertainty = _summed(torch.where(weight > 0, uncertainty.double(), 0.0), size)[kept] / sites[kept]
    share = _summed(correct.double() * weight, size)[kept] / sites[kept]
    return Patches(mean_uncertainty, share >= threshold)


def _summed(values: Float[Tensor, "image h w"], size: int) -> Float[Tensor, "image rows columns"]:
    high, wide = (-values.shape[1] % size, -values.shape[2] % size)
    padded = F.pad(values, (0, wide, 0, high))
    return rearrange(padded, "image (h a) (w b) -> image h w (a b)", a=size, b=size).sum(-1)
