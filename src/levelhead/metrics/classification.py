"""Accuracy and proper scores of class probabilities, as means over the rows that are not void."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.metrics.rows import labelled_rows, top_label
from levelhead.types import Scalar


def accuracy(log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, void: int | None = None) -> Scalar:
    """Share of rows whose most likely class is the label, in [0, 1]."""
    _, correct = top_label(log_probs, y, void=void)
    return correct.double().mean()


def num_errors(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, void: int | None = None
) -> Int[Tensor, ""]:
    """Number of rows whose most likely class is not the label."""
    _, correct = top_label(log_probs, y, void=void)
    return (~correct).sum()


def nll(
    log_probs: Float[Tensor, "*batch class"],
    y: Int[Tensor, "*batch"],
    *,
    void: int | None = None,
    clip: float | None = None,
) -> Scalar:
    """Negative log likelihood -mean log p_y, in nats; infinite where a label was given no probability at all.

    `clip` in (0, 1) raises smaller p_y to that value first; say how many with `clipped_share`. For an ensemble pass the
    log probabilities of the mixture: the mean of the members' NLLs is larger (Jensen) and means another predictor.
    """
    score = _log_prob_of_label(log_probs, y, void=void)
    if clip is not None:
        score = score.clamp_min(_log_of_clip(clip))
    return -score.mean()


def clipped_share(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, clip: float, void: int | None = None
) -> Scalar:
    """Share of rows that `nll(..., clip=clip)` changes: p_y < clip."""
    return (_log_prob_of_label(log_probs, y, void=void) < _log_of_clip(clip)).double().mean()


def brier(log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, void: int | None = None) -> Scalar:
    """Brier score, mean_i sum_k (p_ik - 1[y_i = k])^2, in [0, 2].

    The sum over classes is not divided by their number, and the binary case is not halved (scikit-learn halves it).
    """
    log_probs, y = labelled_rows(log_probs, y, void=void)
    residual = log_probs.exp() - F.one_hot(y, log_probs.shape[-1])
    return residual.square().sum(-1).mean()


def brier_skill(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, void: int | None = None
) -> Scalar:
    """1 - Brier / Brier of predicting these rows' own label shares, in (-inf, 1]: 0 is no better than the shares.

    NaN where one label alone occurs: its share is a perfect prediction.
    """
    terms = brier_decomposition(log_probs, y, void=void)
    shares = torch.where(terms.uncertainty > 1e-12, terms.uncertainty, torch.nan)
    return 1 - brier(log_probs, y, void=void) / shares


def spherical(log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, void: int | None = None) -> Scalar:
    """Spherical score mean p_y / |p|_2, in [0, 1]; proper, and here higher is better."""
    log_probs, y = labelled_rows(log_probs, y, void=void)
    probs = log_probs.exp()
    return (probs[torch.arange(len(y), device=y.device), y] / probs.norm(dim=-1)).mean()


class BrierTerms(NamedTuple):
    """brier = uncertainty - resolution + reliability + within_variance - within_covariance, exactly."""

    uncertainty: Scalar
    resolution: Scalar
    reliability: Scalar
    within_variance: Scalar
    within_covariance: Scalar


def brier_decomposition(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, void: int | None = None
) -> BrierTerms:
    """The Brier score split over the groups g of rows with the same most likely class.

    With shares w_g, mean probabilities P_g, label distributions d_g and the label marginal o:
    uncertainty 1 - |o|^2; resolution sum_g w_g |o - d_g|^2; reliability sum_g w_g |P_g - d_g|^2;
    within_variance mean_i |p_i - P_g(i)|^2; within_covariance 2 mean_i (p_i - P_g(i)) . (y_i - d_g(i)).
    The three-term form of Ovadia et al. (arXiv 1906.02530) leaves out the last two's difference, which is not small
    where predictions vary inside a group.
    """
    log_probs, y = labelled_rows(log_probs, y, void=void)
    probs, labels = log_probs.exp(), F.one_hot(y, log_probs.shape[-1]).double()
    group = F.one_hot(log_probs.argmax(-1), log_probs.shape[-1]).double()
    size = rearrange(group.sum(0), "g -> g 1")
    per_row = size.clamp_min(1)  # an empty group has no mean; its share is zero
    mean_probs, mean_labels = group.mT @ probs / per_row, group.mT @ labels / per_row
    share, marginal = size / len(y), labels.mean(0)
    probs_within, labels_within = probs - group @ mean_probs, labels - group @ mean_labels
    return BrierTerms(
        uncertainty=1 - marginal.square().sum(),
        resolution=(share * (marginal - mean_labels).square()).sum(),
        reliability=(share * (mean_probs - mean_labels).square()).sum(),
        within_variance=probs_within.square().sum(-1).mean(),
        within_covariance=2 * (probs_within * labels_within).sum(-1).mean(),
    )


class ReferenceBrierTerms(NamedTuple):
    """The three numbers of Ovadia et al.'s code, which do not add up to a score; see `brier_terms_of_ovadia`."""

    uncertainty: Scalar
    resolution: Scalar
    reliability: Scalar


def brier_terms_of_ovadia(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, void: int | None = None
) -> ReferenceBrierTerms:
    """The decomposition as the code of Ovadia et al. (arXiv 1906.02530) has it, for comparison with its tables.

    uncertainty -|o|^2 (one less than ours); resolution as ours; reliability mean_i |d_g(i) - p_i|^2. Their
    uncertainty - resolution + reliability differs from their Brier score (which is one less than ours, too) by
    `brier_decomposition`'s within_covariance.
    """
    terms = brier_decomposition(log_probs, y, void=void)
    return ReferenceBrierTerms(terms.uncertainty - 1, terms.resolution, terms.reliability + terms.within_variance)


def _log_prob_of_label(log_probs: Tensor, y: Tensor, *, void: int | None) -> Float[Tensor, " row"]:
    log_probs, y = labelled_rows(log_probs, y, void=void)
    return log_probs[torch.arange(len(y), device=y.device), y]


def _log_of_clip(clip: float) -> float:
    if not 0 < clip < 1:
        raise ValueError(f"clip: wants a probability in (0, 1), got {clip}")
    return math.log(clip)
