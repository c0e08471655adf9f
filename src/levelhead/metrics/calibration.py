"""Does a confidence of 0.8 mean right four times in five? Binned calibration errors, their table and noise floor.

Conventions, where papers differ: top label unless the name says otherwise; 15 bins; equal-width bins are right-closed,
(lower, upper], with 0 in the first and exactly 1 in the last; a bin's confidence is the mean of its members, not its
centre; empty bins count zero. Sums are float64, so streamed tables equal one-shot ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from levelhead.metrics.rows import labelled_rows, top_label
from levelhead.types import Scalar

NUM_BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """Rows counted in bins (edges[b], edges[b + 1]] of confidence; tables over the same edges add up.

    count  rows in each bin. total_confidence, total_hits  sums over the rows of each bin.
    """

    count: Int[Tensor, " bin"]
    total_confidence: Float[Tensor, " bin"]
    total_hits: Float[Tensor, " bin"]
    edges: Float[Tensor, " bin+1"]

    def __add__(self, other: "Reliability") -> "Reliability":
        """The table of both sets of rows."""
        if not torch.equal(self.edges, other.edges):
            raise ValueError("Reliability: only tables over the same bin edges add up; use equal-width bins to stream")
        return Reliability(
            self.count + other.count,
            self.total_confidence + other.total_confidence,
            self.total_hits + other.total_hits,
            self.edges,
        )

    @property
    def confidence(self) -> Float[Tensor, " bin"]:
        """Mean confidence in each bin; NaN where empty."""
        return self.total_confidence / self.count

    @property
    def accuracy(self) -> Float[Tensor, " bin"]:
        """Share of right rows in each bin; NaN where empty."""
        return self.total_hits / self.count

    @property
    def share(self) -> Float[Tensor, " bin"]:
        """Share of all rows that lie in each bin."""
        return self.count.double() / self.count.sum()

    @property
    def gap(self) -> Float[Tensor, " bin"]:
        """Accuracy minus mean confidence in each bin, in [-1, 1]: negative is overconfident; zero where empty."""
        return (self.total_hits - self.total_confidence) / self.count.clamp_min(1)

    def expected_error(self) -> Scalar:
        """sum_b (n_b / n) |gap_b|: the ECE of these bins."""
        return (self.share * self.gap.abs()).sum()

    def root_mean_square_error(self) -> Scalar:
        """sqrt(sum_b (n_b / n) gap_b^2)."""
        return (self.share * self.gap.square()).sum().sqrt()

    def maximum_error(self, *, min_count: int = 1) -> Scalar:
        """max_b |gap_b| over bins of at least `min_count` rows (tiny bins dominate otherwise); zero if none is left."""
        return (self.gap.abs() * (self.count >= min_count)).amax()

    def debiased_squared_error(self) -> Scalar:
        """sum_b (n_b / n) (gap_b^2 - acc_b (1 - acc_b) / (n_b - 1)) over bins of two rows or more.

        Free of most of the upward bias of binned errors, hence possibly negative (Kumar et al., arXiv 1909.10155).
        """
        some = self.count >= 2
        accuracy = torch.where(some, self.accuracy, 0.0)
        noise = accuracy * (1 - accuracy) / (self.count - 1).clamp_min(1)
        return torch.where(some, self.share * (self.gap.square() - noise), 0.0).sum()


def equal_width_edges(bins: int = NUM_BINS) -> Float[Tensor, " edge"]:
    """Edges 0, 1 / bins, ..., 1."""
    if bins < 1:
        raise ValueError(f"bins: wants at least 1, got {bins}")
    return torch.linspace(0, 1, bins + 1, dtype=torch.float64)


def equal_mass_edges(confidence: Float[Tensor, " row"], *, bins: int = NUM_BINS) -> Float[Tensor, " edge"]:
    """Edges that put as many rows in each bin as ties allow: equal values share a bin, so there may be fewer bins.

    The last row of bin b (of n sorted rows) is number ceil(n b / bins).
    """
    if bins < 1:
        raise ValueError(f"bins: wants at least 1, got {bins}")
    last = torch.arange(1, bins + 1, device=confidence.device) * len(confidence)
    upper = confidence.double().sort().values[((last + bins - 1) // bins - 1).clamp_min(0)].unique()
    return torch.cat([upper.new_zeros(1), upper[:-1], upper.new_ones(1)])


def reliability_table(
    confidence: Float[Tensor, " row"],
    outcome: Bool[Tensor, " row"] | Float[Tensor, " row"],
    *,
    edges: Float[Tensor, " edge"] | None = None,
) -> Reliability:
    """The table of any confidences and outcomes, both in [0, 1], over `edges` or 15 equal-width bins."""
    edges = (equal_width_edges() if edges is None else edges).to(confidence.device, torch.float64)
    confidence, bins = confidence.double().contiguous(), len(edges) - 1
    index = torch.bucketize(confidence, edges[1:-1])
    return Reliability(
        torch.zeros(bins, dtype=torch.long, device=edges.device).index_add(0, index, torch.ones_like(index)),
        _sum_by(index, confidence, bins),
        _sum_by(index, outcome, bins),
        edges,
    )


def reliability(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, bins: int = NUM_BINS, void: int | None = None
) -> Reliability:
    """Reliability of the top label in equal-width bins; add the tables of batches to stream over a split."""
    confidence, correct = top_label(log_probs, y, void=void)
    return reliability_table(confidence, correct, edges=equal_width_edges(bins))


def ece(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, bins: int = NUM_BINS, void: int | None = None
) -> Scalar:
    """Expected calibration error sum_b (n_b / n) |acc_b - conf_b| of the top label, equal-width bins, in [0, 1].

    A confidence of exactly 1 counts in the last bin. A perfectly calibrated model does not reach 0 on finitely many
    rows: print `noise_floor(ece, ...)` beside it. Naeini et al. 2015; Guo et al., arXiv 1706.04599.
    """
    return reliability(log_probs, y, bins=bins, void=void).expected_error()


def overconfidence(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, void: int | None = None
) -> Scalar:
    """Mean confidence - accuracy of the top label, in [-1, 1]: positive is overconfident.

    Also called signed ECE, sum_b (n_b / n) (conf_b - acc_b): without the absolute value the bins cancel, so a
    prediction that is too sure here and not sure enough there may read 0.
    """
    confidence, correct = top_label(log_probs, y, void=void)
    return confidence.double().mean() - correct.double().mean()


def adaptive_ece(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, bins: int = NUM_BINS, void: int | None = None
) -> Scalar:
    """ECE of the top label in equal-mass bins: edges at quantiles of the confidence, ties in one bin."""
    confidence, correct = top_label(log_probs, y, void=void)
    return reliability_table(confidence, correct, edges=equal_mass_edges(confidence, bins=bins)).expected_error()


def classwise_ece(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, bins: int = NUM_BINS, void: int | None = None
) -> Scalar:
    """(1 / K) sum_k sum_b (n_bk / n) |mean 1[y = k] - mean p_k|: every class's probability, equal-width bins.

    Averages over all K classes of the predictions, whether or not a class occurs among the labels.
    Also called static calibration error (Nixon et al., arXiv 1904.01685).
    """
    log_probs, y = labelled_rows(log_probs, y, void=void)
    probs, num_classes = log_probs.exp().clamp_max(1.0), log_probs.shape[-1]
    index = torch.bucketize(probs, equal_width_edges(bins)[1:-1].to(probs.device))
    index = index + bins * torch.arange(num_classes, device=probs.device)
    residual = F.one_hot(y, num_classes) - probs
    # (n_b / n) |acc - conf| = |sum over the bin of (hit - conf)| / n: the counts cancel
    return _sum_by(index.flatten(), residual.flatten(), bins * num_classes).abs().sum() / (len(y) * num_classes)


def adaptive_classwise_error(
    log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"], *, bins: int = NUM_BINS, void: int | None = None
) -> Scalar:
    """The "ACE" of Nixon et al. (arXiv 1904.01685): mean over classes and their equal-mass bins of |acc - conf|.

    Bins count equally, whatever their size; ties stay in one bin.
    """
    log_probs, y = labelled_rows(log_probs, y, void=void)
    per_class = []
    for k, p in enumerate(log_probs.exp().clamp_max(1.0).unbind(-1)):
        table = reliability_table(p, y == k, edges=equal_mass_edges(p, bins=bins))
        per_class.append(table.gap.abs().sum() / (table.count > 0).sum())
    return torch.stack(per_class).mean()


class NoiseFloor(NamedTuple):
    """What a metric reads on this many rows when the probabilities are exactly right: mean and spread over draws."""

    mean: Scalar
    std: Scalar


def noise_floor(
    metric: Callable[[Float[Tensor, "row class"], Int[Tensor, " row"]], Scalar],
    log_probs: Float[Tensor, "*batch class"],
    *,
    generator: torch.Generator,
    draws: int = 100,
) -> NoiseFloor:
    """Mean and standard deviation of metric(log_probs, y) under perfect calibration, y ~ log_probs, by simulation.

    A value within a few `std` of `mean` is no evidence of miscalibration. `metric`: ece, adaptive_ece, smooth_ece, ...
    """
    if draws < 2:
        raise ValueError(f"draws: wants at least 2, got {draws}")
    rows = rearrange(log_probs, "... k -> (...) k")
    probs = rows.detach().to(generator.device, torch.float64).exp()
    labels = torch.multinomial(probs, draws, replacement=True, generator=generator).to(rows.device)
    values = torch.stack([metric(rows, y) for y in labels.unbind(1)])
    return NoiseFloor(values.mean(), values.std())


def _sum_by(index: Int[Tensor, " row"], values: Tensor, size: int) -> Float[Tensor, " bin"]:
    # index_add and not bincount: it has a deterministic CUDA form
    return torch.zeros(size, dtype=torch.float64, device=index.device).index_add(0, index, values.double())
