"""How well a score orders examples: out-of-distribution detection, failure detection, selective prediction.

A higher score means "more positive": more out-of-distribution, or more likely wrong. Ties count half (AUROC), as one
threshold (AUPR, FPR) or as the mean over their orders (risk and coverage), so no result depends on the order of rows.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from levelhead.metrics.rows import top_label
from levelhead.types import Scalar


def auroc(score: Float[Tensor, " example"], positive: Bool[Tensor, " example"]) -> Scalar:
    """P(score of a positive > score of a negative) + P(equal) / 2, in [0, 1]; 1/2 for a constant score.

    Raises ValueError where positives or negatives are absent, or a score is NaN.
    """
    _check(score, positive)
    num_positive = positive.sum()
    num_negative = len(score) - num_positive
    _, block, size = score.unique(return_inverse=True, return_counts=True)
    rank = size.cumsum(0).double() - (size - 1) / 2  # mean rank of each block of ties, from 1
    wins = rank[block[positive]].sum() - num_positive * (num_positive + 1) / 2
    return wins / (num_positive * num_negative)


def average_precision(score: Float[Tensor, " example"], positive: Bool[Tensor, " example"]) -> Scalar:
    """Area under the precision-recall curve as a step function, sum_t (recall_t - recall_{t-1}) precision_t, in [0, 1].

    Depends on the share of positives (a random score gets that share): print it beside. The trapezoid variant of other
    libraries differs slightly.
    """
    _check(score, positive)
    true, false = _counts_above(score, positive)
    recall = true / true[-1]
    gained = torch.diff(recall, prepend=recall.new_zeros(1))
    return (gained * true / (true + false)).sum()


def aupr(
    score: Float[Tensor, " example"], ood: Bool[Tensor, " example"], *, positive: Literal["ood", "id"] = "ood"
) -> Scalar:
    """Average precision of finding the out-of-distribution examples by high score, or the others by low score."""
    if positive == "ood":
        return average_precision(score, ood)
    return average_precision(-score, ~ood)


def fpr_at_recall(
    score: Float[Tensor, " example"], positive: Bool[Tensor, " example"], *, recall: float = 0.95
) -> Scalar:
    """Share of negatives at or above the highest threshold that at least `recall` of the positives reach, in [0, 1]."""
    if not 0 < recall <= 1:
        raise ValueError(f"recall: wants a share in (0, 1], got {recall}")
    _check(score, positive)
    true, false = _counts_above(score, positive)
    reached = true >= recall * true[-1] - 1e-9  # the product rounds: 0.07 * 100 > 7
    return (false / false[-1])[reached].amin()


def fpr95(
    score: Float[Tensor, " example"], ood: Bool[Tensor, " example"], *, positive: Literal["ood", "id"] = "ood"
) -> Scalar:
    """False positive rate where 95 % of the positives are found; two conventions live in the literature.

    "ood" (OpenOOD, pytorch-ood): share of in-distribution examples flagged while 95 % of the OOD ones are caught.
    "id" (ODIN, Liang et al., arXiv 1706.02690): share of OOD examples accepted while 95 % of the others are.
    """
    if positive == "ood":
        return fpr_at_recall(score, ood)
    return fpr_at_recall(-score, ~ood)


class RiskCoverage(NamedTuple):
    """Mean error among the i most certain examples, i = 1 ... n, against the share i / n that they are."""

    coverage: Float[Tensor, " example"]
    risk: Float[Tensor, " example"]


def risk_coverage(
    uncertainty: Float[Tensor, " example"], error: Bool[Tensor, " example"] | Float[Tensor, " example"]
) -> RiskCoverage:
    """Risk among the most certain examples at every coverage; within a block of ties, the mean over their orders.

    `error` is 1 where wrong, or any loss to average.
    """
    _check(uncertainty)
    num = len(uncertainty)
    rank = torch.arange(1, num + 1, dtype=torch.float64, device=uncertainty.device)
    _, block, size = uncertainty.unique(return_inverse=True, return_counts=True)
    block_error = torch.zeros(len(size), dtype=torch.float64, device=uncertainty.device)
    block_error = block_error.index_add(0, block, error.double()) / size
    expected = block_error.repeat_interleave(size)  # of the i-th example, over the orders of its block
    return RiskCoverage(rank / num, expected.cumsum(0) / rank)


def aurc(uncertainty: Float[Tensor, " example"], error: Bool[Tensor, " example"] | Float[Tensor, " example"]) -> Scalar:
    """Area under the risk-coverage curve, mean_i risk_i: lower is better; a random order gets the mean error.

    Geifman and El-Yaniv, arXiv 1705.08500. Rectangle rule over coverage (the trapezoid differs in the 5th digit).
    """
    return risk_coverage(uncertainty, error).risk.mean()


def excess_aurc(
    uncertainty: Float[Tensor, " example"], error: Bool[Tensor, " example"] | Float[Tensor, " example"]
) -> Scalar:
    """AURC minus that of the best order of the same errors; never negative (Geifman et al., arXiv 1805.08206)."""
    return aurc(uncertainty, error) - aurc(error.double(), error)


def augrc(
    uncertainty: Float[Tensor, " example"], error: Bool[Tensor, " example"] | Float[Tensor, " example"]
) -> Scalar:
    """Area under the generalised risk curve, mean_i (errors among the i most certain) / n (arXiv 2407.01032)."""
    coverage, risk = risk_coverage(uncertainty, error)
    return (coverage * risk).mean()


def risk_at_coverage(
    uncertainty: Float[Tensor, " example"],
    error: Bool[Tensor, " example"] | Float[Tensor, " example"],
    *,
    coverage: float,
) -> Scalar:
    """Mean error among the most certain share of the examples; selective accuracy is one minus this."""
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage: wants a share in (0, 1], got {coverage}")
    curve = risk_coverage(uncertainty, error)
    return curve.risk[(curve.coverage >= coverage - 1e-9).nonzero()[0, 0]]


class ConfidentAccuracy(NamedTuple):
    """Accuracy among the rows at least as confident as each threshold (NaN where there is none), and their number."""

    accuracy: Float[Tensor, " threshold"]
    num_rows: Int[Tensor, " threshold"]


def accuracy_above(
    log_probs: Float[Tensor, "*batch class"],
    y: Int[Tensor, "*batch"],
    *,
    thresholds: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    void: int | None = None,
) -> ConfidentAccuracy:
    """Accuracy of the rows with confidence >= threshold, as Ovadia et al. (arXiv 1906.02530) plot it."""
    confidence, correct = top_label(log_probs, y, void=void)
    kept = confidence >= torch.tensor(thresholds, dtype=torch.float64, device=confidence.device)[:, None]
    return ConfidentAccuracy((kept & correct).sum(-1) / kept.sum(-1).double(), kept.sum(-1))


def unsure_if_wrong(
    log_probs: Float[Tensor, "*batch class"],
    y: Int[Tensor, "*batch"],
    *,
    threshold: float = 0.9,
    void: int | None = None,
) -> Scalar:
    """P(confidence < threshold | wrong), in [0, 1]; NaN where nothing is wrong.

    At 0.9 the "Unc-90" of Park & Kim (arXiv 2105.12639); `accuracy_above` has their Acc-90 and Freq-90.
    """
    confidence, correct = top_label(log_probs, y, void=void)
    return ((confidence < threshold) & ~correct).sum() / (~correct).sum().double()


def _counts_above(score: Tensor, positive: Tensor) -> tuple[Float[Tensor, " level"], Float[Tensor, " level"]]:
    """Positives and negatives at or above each distinct score, from the highest down."""
    levels, block = score.unique(return_inverse=True)
    zero = torch.zeros(len(levels), dtype=torch.float64, device=score.device)
    true = zero.index_add(0, block, positive.double())
    false = zero.index_add(0, block, (~positive).double())
    return true.flip(0).cumsum(0), false.flip(0).cumsum(0)


def _check(score: Tensor, positive: Tensor | None = None) -> None:
    if len(score) == 0 or bool(score.isnan().any()):
        raise ValueError(f"score: wants at least one example and no NaN, got {len(score)} examples")
    if positive is not None and not 0 < int(positive.sum()) < len(score):
        raise ValueError(
            f"positive: wants examples of both kinds, got {int(positive.sum())} positive of {len(score)}; "
            "the ranking of one kind against nothing is undefined"
        )
