"""Prediction sets: do they hold the label as often as promised, on average and where it is hard, and at what size?

`sets` (row, class) are True for the classes in a row's set. Coverage on average is what conformal prediction promises;
coverage by class, by size of the set or in a slab of the inputs is what users take it for, and nobody promises.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from levelhead.types import Scalar

GRID = 100  # quantiles between which slabs are sought


def set_coverage(sets: Bool[Tensor, "row class"], y: Int[Tensor, " row"]) -> Scalar:
    """Share of rows whose set holds the label, in [0, 1]."""
    return _covered(sets, y).double().mean()


def set_size(sets: Bool[Tensor, "row class"]) -> Scalar:
    """Mean number of classes in a set."""
    return sets.sum(-1).double().mean()


def empty_share(sets: Bool[Tensor, "row class"]) -> Scalar:
    """Share of sets without any class, in [0, 1]: none of the classes seemed possible."""
    return (~sets.any(-1)).double().mean()


def class_coverage(sets: Bool[Tensor, "row class"], y: Int[Tensor, " row"]) -> Float[Tensor, " class"]:
    """Coverage among the rows of each label; NaN for labels that do not occur."""
    covered = _covered(sets, y).double()
    zero = torch.zeros(sets.shape[-1], dtype=torch.float64, device=sets.device)
    return zero.index_add(0, y, covered) / zero.index_add(0, y, torch.ones_like(covered))


def class_coverage_gap(sets: Bool[Tensor, "row class"], y: Int[Tensor, " row"], *, alpha: float = 0.1) -> Scalar:
    """CovGap: mean over labels that occur of |coverage of the label - (1 - alpha)|. Ding et al., arXiv 2306.09335."""
    _check_alpha(alpha)
    return (class_coverage(sets, y) - (1 - alpha)).abs().nanmean()


def size_stratified_violation(
    sets: Bool[Tensor, "row class"], y: Int[Tensor, " row"], *, alpha: float = 0.1, min_count: int = 1
) -> Scalar:
    """SSCV: the largest |coverage - (1 - alpha)| among the rows with sets of a size, over sizes of `min_count` rows.

    Adaptive sets cover alike at every size. Zero if no size has as many rows. Angelopoulos et al., arXiv 2009.14193,
    who pool sizes; here every size is a stratum.
    """
    _check_alpha(alpha)
    _, stratum, count = sets.sum(-1).unique(return_inverse=True, return_counts=True)
    hits = torch.zeros(len(count), dtype=torch.float64, device=sets.device)
    share = hits.index_add(0, stratum, _covered(sets, y).double()) / count
    return ((share - (1 - alpha)).abs() * (count >= min_count)).amax()


def worst_slab_coverage(
    x: Float[Tensor, "row feature"],
    covered: Bool[Tensor, " row"],
    *,
    generator: torch.Generator,
    mass: float = 0.1,
    directions: int = 200,
) -> Scalar:
    """Coverage of the slab a <= v . x <= b that covers least, found on half of the rows and measured on the others.

    Over random unit vectors v and bounds at percentiles, among slabs that hold at least `mass` of the rows of the first
    half (drawn at random). NaN where none of the others lies in it. Cauchois et al., arXiv 2004.10181; Romano et al.,
    arXiv 2006.02544.
    """
    if not 0 < mass <= 1 or directions < 1 or len(x) < 4:
        raise ValueError(
            f"mass, directions, x: want a share in (0, 1], at least 1 and 4 rows; got {mass}, {directions}, {len(x)}"
        )
    order = torch.randperm(len(x), generator=generator).to(x.device)
    first, second = order[: len(x) // 2], order[len(x) // 2 :]
    v = torch.randn(x.shape[-1], directions, generator=generator, dtype=torch.float64).to(x.device)
    place = x.double() @ (v / v.norm(dim=0))
    worst, found = torch.inf, torch.zeros(len(second), dtype=torch.bool, device=x.device)
    for line in place.mT:
        ordered, rank = line[first].sort()
        hits = torch.nn.functional.pad(covered[first][rank].double().cumsum(0), (1, 0))
        ends = torch.linspace(0, len(first), min(GRID, len(first)) + 1, device=x.device).round().long()
        size = ends[None] - ends[:, None]
        share = torch.where(
            size >= mass * len(first) - 1e-9, (hits[ends][None] - hits[ends][:, None]) / size, torch.inf
        )
        least = share.argmin()
        low, high = ends[least // len(ends)], ends[least % len(ends)]
        if share.flatten()[least] < worst:
            worst = float(share.flatten()[least])
            found = (line[second] >= ordered[low]) & (line[second] <= ordered[high - 1])
    return covered[second][found].double().mean()


def _covered(sets: Tensor, y: Tensor) -> Bool[Tensor, " row"]:
    if len(y) == 0 or int(y.min()) < 0 or int(y.max()) >= sets.shape[-1]:
        raise ValueError(f"y: wants labels in 0 ... {sets.shape[-1] - 1}, at least one")
    return sets[torch.arange(len(y), device=y.device), y]


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: wants a probability in (0, 1), got {alpha}")
