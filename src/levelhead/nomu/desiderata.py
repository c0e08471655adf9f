"""What is asked of model uncertainty, as numbers of any predictor about real targets.

Non-negative; none at noise-free training points; growing away from them; with a distance that matters for the
prediction; vanishing as the data become dense. Heiss et al., arXiv 2102.13640.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from levelhead.nomu.likelihood import model_std
from levelhead.predictive import GaussianMixture
from levelhead.predictor import Predictor

BATCH = 2000


class Desiderata(NamedTuple):
    """One predictor on one task.

    smallest   the smallest sigma anywhere looked at: at least 0 (non-negativity).
    in_sample  mean sigma at the training inputs, by the mean over the domain: 0 is wanted.
    growth     rank correlation of sigma with the distance to the nearest training input, over the domain: 1 is most.
    mean_std   mean sigma over the domain, in target units: to fall with more data (vanishing).
    """

    smallest: float
    in_sample: float
    growth: float
    mean_std: float


def desiderata(
    predictor: Predictor, train: Float[Tensor, "row *input"], domain: Float[Tensor, "point *input"]
) -> Desiderata:
    """The numbers for training inputs and points spread over the domain."""
    here, there = std_at(predictor, train), std_at(predictor, domain)
    return Desiderata(
        smallest=float(torch.cat([here, there]).min()),
        in_sample=float(here.mean() / there.mean()),
        growth=rank_correlation(there, distance_to(train, domain)),
        mean_std=float(there.mean()),
    )


def metric_ratio(
    predictor: Predictor, relevant: Float[Tensor, "point *input"], irrelevant: Float[Tensor, "point *input"]
) -> float:
    """Mean sigma at points beyond the data along what the target depends on, by that along what it does not: above 1.

    The points of both sets must be equally far from the data, or the ratio speaks of distance.
    """
    return float(std_at(predictor, relevant).mean() / std_at(predictor, irrelevant).mean())


def vanishes(mean_stds: Iterable[float]) -> bool:
    """Whether the mean sigma over the domain falls from each size of the training data to the next."""
    return all(later < earlier for earlier, later in pairwise(mean_stds))


@torch.no_grad()
def std_at(predictor: Predictor, x: Float[Tensor, "point *input"]) -> Float[Tensor, " point"]:
    """The epistemic standard deviation, the root of the mean variance over targets where there are several."""
    found = []
    for rows in x.split(BATCH):
        belief = predictor(rows)
        if not isinstance(belief, GaussianMixture):
            raise ValueError("std_at: wants a predictor about real targets, this one speaks of classes")
        found.append(model_std(belief).square().mean(-1).sqrt())
    return torch.cat(found)


def distance_to(train: Float[Tensor, "row *input"], x: Float[Tensor, "point *input"]) -> Float[Tensor, " point"]:
    """Euclidean distance to the nearest training input, in the inputs' own units."""
    return torch.cdist(rearrange(x, "n ... -> n (...)"), rearrange(train, "n ... -> n (...)")).amin(1)


def rank_correlation(a: Float[Tensor, " point"], b: Float[Tensor, " point"]) -> float:
    """Spearman's: the correlation of the ranks; equal values share their mean rank. 0 where one does not vary."""
    ranks = torch.stack([_ranks(a.double()), _ranks(b.double())])
    centred = ranks - ranks.mean(1, keepdim=True)
    norm = centred.norm(dim=1).prod()
    return float((centred[0] * centred[1]).sum() / norm) if norm > 0 else 0.0


def _ranks(values: Float[Tensor, " point"]) -> Float[Tensor, " point"]:
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    return (last - (count.double() - 1) / 2)[place]
