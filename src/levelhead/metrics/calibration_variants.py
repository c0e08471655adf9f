"""Other binned calibration errors that papers print: worst bin, root mean square, debiased, top k, thresholded, sweep.

Conventions are those of `levelhead.metrics.calibration`: right-closed bins, ties in one bin, empty bins count zero.
Two different questions share the name of binary calibration, and have names of their own here: `positive_ece` asks
whether the probability of the positive class is right, `ece` of `two_class_log_probs` whether the top label's is.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from levelhead.metrics.calibration import (
    NUM_BINS,
    Reliability,
    equal_mass_edges,
    equal_width_edges,
    reliability,
    reliability_table,
)
from levelhead.metrics.rows import labelled_rows, top_label
from levelhead.types import Scalar


def mce(
    log_probs: Float[Tensor, "*batch class"],
    y: Int[Tensor, "*batch"],
    *,
    bins: int = NUM_BINS,
    min_count: int = 1,
    void: int | None = None,
) -> Scalar:
    """Maximum calibration error max_b |acc_b - conf_b| over bins of at least `min_count` rows, in [0, 1].

    One unlucky row alone in a bin sets it: raise `min_count` (30, say) and state it. Naeini et al. 2015.
    """
    return reliability(log_probs, y, bins=bins, void=void).maximum_error(min_count=min_count)


def rmsce(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, bins: int = NUM_BINS, void: int | None = None
) -> Scalar:
    """Root mean square calibration error sqrt(sum_b (n_b / n) (acc_b - conf_b)^2), in [ECE, MCE]."""
    return reliability(log_probs, y, bins=bins, void=void).root_mean_square_error()


class Debiased(NamedTuple):
    """An estimate of the squared error, of either sign, and sqrt(max(0, it)) on the scale of an error."""

    squared: Scalar
    root: Scalar


def debiased_ece(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, bins: int = NUM_BINS, void: int | None = None
) -> Debiased:
    """ECE^2 less what chance puts into it, sum_b (n_b / n) (gap_b^2 - acc_b (1 - acc_b) / (n_b - 1)).

    About zero on calibrated predictions whatever their number. Kumar et al., arXiv 1909.10155; Broecker 2012.
    """
    squared = reliability(log_probs, y, bins=bins, void=void).debiased_squared_error()
    return Debiased(squared, squared.clamp_min(0.0).sqrt())


def top_k_ece(
    log_probs: Float[Tensor, "*batch class"],
    y: Int[Tensor, "*batch"],
    *,
    k: int,
    bins: int = NUM_BINS,
    void: int | None = None,
) -> Scalar:
    """ECE of the k most likely classes of each row, all (probability, hit) pairs pooled; k = 1 is `ece`.

    Ovadia et al. (arXiv 1906.02530) print k = 5 and 10 on ImageNet.
    """
    log_probs, y = labelled_rows(log_probs, y, void=void)
    if not 1 <= k <= log_probs.shape[-1]:
        raise ValueError(f"k: wants a number of classes in 1 ... {log_probs.shape[-1]}, got {k}")
    best, label = log_probs.topk(k, dim=-1)
    hit = label == y[:, None]
    return reliability_table(
        best.exp().clamp_max(1.0).flatten(), hit.flatten(), edges=equal_width_edges(bins)
    ).expected_error()


def thresholded_error(
    log_probs: Float[Tensor, "*batch class"],
    y: Int[Tensor, "*batch"],
    *,
    threshold: float = 0.01,
    bins: int = NUM_BINS,
    adaptive: bool = True,
    void: int | None = None,
) -> Scalar:
    """Mean over classes of the error of the probabilities of at least `threshold`, in [0, 1].

    With many classes nearly all probabilities are nearly zero and hide the rest. `adaptive`: equal-mass bins that count
    equally ("TACE"); else equal-width bins weighted by their rows. A class without such a probability is left out; NaN
    where all are. Nixon et al., arXiv 1904.01685.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold: wants a probability in [0, 1), got {threshold}")
    log_probs, y = labelled_rows(log_probs, y, void=void)
    per_class = []
    for k, p in enumerate(log_probs.exp().clamp_max(1.0).unbind(-1)):
        kept = p >= threshold
        if bool(kept.any()):
            table = _table(p[kept], (y == k)[kept], bins=bins, adaptive=adaptive)
            per_class.append(_mean_gap(table) if adaptive else table.expected_error())
    return torch.stack(per_class).mean() if per_class else log_probs.new_full((), torch.nan)


class Sweep(NamedTuple):
    """An error and the number of bins that the sweep chose for it."""

    error: Scalar
    bins: int


def sweep_ece(
    log_probs: Float[Tensor, "*batch class"],
    y: Int[Tensor, "*batch"],
    *,
    norm: Literal["l1", "l2"] = "l1",
    void: int | None = None,
) -> Sweep:
    """ECE over as many equal-mass bins as keep the accuracy from falling with the confidence, in [0, 1].

    Bins are added one by one until accuracy falls somewhere; the last number before that is used. "l2" is the root mean
    square that the paper plots. Less biased than 15 bins on few rows. Roelofs et al., arXiv 2012.08668.
    """
    confidence, correct = top_label(log_probs, y, void=void)
    order = confidence.argsort()
    ordered = confidence[order]
    # sums over the first i rows: a bin is a difference of two of them
    conf = F.pad(ordered.cumsum(0), (1, 0))
    hits = F.pad(correct[order].double().cumsum(0), (1, 0))
    num = len(ordered)
    end_of_ties = torch.searchsorted(ordered, ordered, right=True)
    chosen = torch.tensor([0, num], device=ordered.device)
    blocks = F.pad(end_of_ties.unique(), (1, 0))
    in_order = bool(((hits[blocks].diff() / blocks.diff()).diff() >= 0).all())
    if in_order:
        chosen = blocks  # and any bins of them are in order too
    for bins in range(2, 2 if in_order else num + 1):
        last = (torch.arange(1, bins + 1, device=ordered.device) * num + bins - 1) // bins - 1
        ends = F.pad(end_of_ties[last], (1, 0)).unique()
        accuracy = hits[ends].diff() / ends.diff()
        if bool((accuracy.diff() < 0).any()):
            break
        chosen = ends
    size = chosen.diff()
    gap = (hits[chosen].diff() - conf[chosen].diff()) / size
    share = size.double() / num
    error = (share * gap.abs()).sum() if norm == "l1" else (share * gap.square()).sum().sqrt()
    return Sweep(error, len(size))


def positive_ece(
    positive_prob: Float[Tensor, " row"],
    positive: Bool[Tensor, " row"],
    *,
    bins: int = NUM_BINS,
    adaptive: bool = False,
) -> Scalar:
    """ECE of the positive class of two: its probability against its share, sum_b (n_b / n) |mean y - mean p|.

    What torchmetrics, netcal and scikit-learn call the binary calibration error. Half of two, `classwise_ece` agrees
    with it where no probability lies on an edge; the top-label `ece` is another number.
    """
    _check_probabilities(positive_prob)
    return _table(positive_prob.double(), positive, bins=bins, adaptive=adaptive).expected_error()


def two_class_log_probs(positive_prob: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 2"]:
    """Log probabilities (negative, positive) from the probability of the positive class, for metrics of classes.

    A column (row, 1) wants `[:, 0]` first; (row, 2) are probabilities of both already: take their logarithm.
    """
    _check_probabilities(positive_prob)
    p = positive_prob.double()
    return torch.stack([torch.log1p(-p), p.log()], dim=-1)


def _table(confidence: Tensor, outcome: Tensor, *, bins: int, adaptive: bool) -> Reliability:
    edges = equal_mass_edges(confidence, bins=bins) if adaptive else equal_width_edges(bins)
    return reliability_table(confidence, outcome, edges=edges)


def _mean_gap(table: Reliability) -> Scalar:
    """Every bin that holds a row counts alike."""
    return table.gap.abs().sum() / (table.count > 0).sum()


def _check_probabilities(p: Tensor) -> None:
    if p.numel() == 0 or not bool(((p >= 0) & (p <= 1)).all()):  # also true for NaN
        raise ValueError("positive_prob: wants probabilities in [0, 1], at least one, without NaN; logits want sigmoid")
