"""Metrics as sums that add up: over batches (`update`), pieces (`merge`) and processes (`all_reduce`).

What is kept does not grow with the rows. Every metric here equals its one-shot function on all rows at once, however
they were cut. The state is float64 tensors in `totals`, whose shapes are known before the first batch, so that a
process without rows can take part in a sum over processes.
"""

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, Self

import torch
import torch.distributed
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.metrics.calibration import NUM_BINS, Reliability, equal_width_edges, reliability_table
from levelhead.metrics.classification import BrierTerms
from levelhead.metrics.ranking import ConfidentAccuracy
from levelhead.metrics.rows import labelled_rows, top_label
from levelhead.types import Scalar

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Totals(ABC):
    """Sums over rows, from which a metric follows. Subclasses set `totals` and say how a batch adds to them."""

    totals: dict[str, Tensor]

    @abstractmethod
    def settings(self) -> tuple[object, ...]:
        """What two must have in common for their sums to add up."""

    def merge(self, other: Self) -> None:
        """Take in the rows of another one of the same settings, which stays as it is."""
        if type(other) is not type(self) or other.settings() != self.settings():
            raise ValueError(
                f"merge: wants a {type(self).__name__} with the settings {self.settings()}, "
                f"got a {type(other).__name__} with {other.settings()}"
            )
        for name, total in other.totals.items():
            self.totals[name] = self.totals[name] + total.to(self.totals[name].device)

    def all_reduce(self, group: torch.distributed.ProcessGroup | None = None) -> None:
        """Replace the sums by those over all processes: once, after the last batch."""
        for name in sorted(self.totals):
            torch.distributed.all_reduce(self.totals[name], group=group)

    def reset(self) -> None:
        """Forget all rows."""
        for total in self.totals.values():
            total.zero_()

    def _add(self, **sums: Tensor) -> None:
        for name, value in sums.items():
            total = self.totals[name].to(value.device)  # the sums follow the data
            self.totals[name] = total + value.detach().to(total)


class ClassScores(NamedTuple):
    """Proper scores of all rows, as the functions of the same names give them."""

    accuracy: Scalar
    nll: Scalar
    brier: Scalar
    decomposition: BrierTerms


class StreamedScores(Totals):
    """accuracy, nll, brier and its exact decomposition, streamed; memory classes^2."""

    def __init__(self, num_classes: int, *, void: int | None = None) -> None:
        self.num_classes, self.void = num_classes, void
        square = (num_classes, num_classes)
        shapes: dict[str, tuple[int, ...]] = {"rows": (), "hits": (), "loss": (), "squares": (), "on_label": ()}
        shapes |= {"probs": square, "labels": square}
        self.totals = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}

    def settings(self) -> tuple[object, ...]:
        """See `Totals`."""
        return (self.num_classes, self.void)

    def update(self, log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"]) -> None:
        """Add a batch; one whose labels are all void adds nothing."""
        if _all_void(y, self.void):
            return
        log_probs, y = labelled_rows(log_probs, y, void=self.void)
        probs, labels = log_probs.exp(), F.one_hot(y, self.num_classes).double()
        predicted = F.one_hot(log_probs.argmax(-1), self.num_classes).double()
        of_label = log_probs[torch.arange(len(y), device=y.device), y]
        self._add(
            rows=y.new_tensor(len(y)),
            hits=(predicted * labels).sum(),
            loss=-of_label.sum(),
            squares=probs.square().sum(),
            on_label=of_label.exp().sum(),
            probs=predicted.mT @ probs,
            labels=predicted.mT @ labels,
        )

    def compute(self) -> ClassScores:
        """The scores of all rows so far."""
        t, rows = self.totals, _at_least_one(self.totals["rows"])
        size = t["labels"].sum(-1)
        per_row = rearrange(size.clamp_min(1), "g -> g 1")
        mean_probs, mean_labels, marginal = t["probs"] / per_row, t["labels"] / per_row, t["labels"].sum(0) / rows
        share = rearrange(size / rows, "g -> g 1")
        terms = BrierTerms(
            uncertainty=1 - marginal.square().sum(),
            resolution=(share * (marginal - mean_labels).square()).sum(),
            reliability=(share * (mean_probs - mean_labels).square()).sum(),
            within_variance=t["squares"] / rows - (share * mean_probs.square()).sum(),
            within_covariance=2 * (t["on_label"] / rows - (share * mean_probs * mean_labels).sum()),
        )
        brier = (t["squares"] - 2 * t["on_label"]) / rows + 1
        return ClassScores(t["hits"] / rows, t["loss"] / rows, brier, terms)


class CalibrationError(Totals):
    """Calibration error over equal-width bins, streamed; `tables` gives the reliability table behind it.

    target  "top": the top label (`ece`); "classwise": every class by itself, averaged (`classwise_ece`), which needs
            num_classes; "positive": the second of two classes (`positive_ece`).
    norm    "l1": mean gap; "l2": root mean square; "max": the worst bin of at least `min_count` rows; "debiased": the
            squared error less what chance puts into it, of either sign.
    """

    def __init__(
        self,
        *,
        bins: int = NUM_BINS,
        norm: Literal["l1", "l2", "max", "debiased"] = "l1",
        target: Literal["top", "classwise", "positive"] = "top",
        num_classes: int | None = None,
        min_count: int = 1,
        void: int | None = None,
    ) -> None:
        if (target == "classwise") != (num_classes is not None):
            raise ValueError(
                f"num_classes: is for target='classwise', which needs it; got {num_classes} for {target!r}"
            )
        self.edges = equal_width_edges(bins)
        self.bins, self.norm, self.target, self.num_classes = bins, norm, target, num_classes
        self.min_count, self.void = min_count, void
        shape = (num_classes or 1, bins)
        self.totals = {
            name: torch.zeros(shape, dtype=torch.float64) for name in ("count", "total_confidence", "total_hits")
        }

    def settings(self) -> tuple[object, ...]:
        """See `Totals`; norms may differ, the sums are the same."""
        return (self.bins, self.target, self.num_classes, self.void)

    def update(self, log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"]) -> None:
        """Add a batch; one whose labels are all void adds nothing."""
        if _all_void(y, self.void):
            return
        if self.target == "top":
            tables = [reliability_table(*top_label(log_probs, y, void=self.void), edges=self.edges)]
        else:
            log_probs, y = labelled_rows(log_probs, y, void=self.void)
            wanted = 2 if self.num_classes is None else self.num_classes
            if log_probs.shape[-1] != wanted:
                raise ValueError(f"log_probs: wants {wanted} classes on the last axis, got {log_probs.shape[-1]}")
            probs = log_probs.exp().clamp_max(1.0)
            classes = [1] if self.num_classes is None else range(self.num_classes)
            tables = [reliability_table(probs[:, k], y == k, edges=self.edges) for k in classes]
        self._add(
            count=torch.stack([table.count for table in tables]),
            total_confidence=torch.stack([table.total_confidence for table in tables]),
            total_hits=torch.stack([table.total_hits for table in tables]),
        )

    def tables(self) -> list[Reliability]:
        """The reliability table of all rows so far: one, or one a class."""
        counts, confidences, hits = (self.totals[name] for name in ("count", "total_confidence", "total_hits"))
        return [Reliability(n.long(), c, h, self.edges) for n, c, h in zip(counts, confidences, hits, strict=True)]

    def compute(self) -> Scalar:
        """The error of all rows so far."""
        _at_least_one(self.totals["count"].sum())
        return torch.stack([self._error(table) for table in self.tables()]).mean()

    def _error(self, table: Reliability) -> Scalar:
        if self.norm == "l1":
            return table.expected_error()
        if self.norm == "l2":
            return table.root_mean_square_error()
        if self.norm == "max":
            return table.maximum_error(min_count=self.min_count)
        return table.debiased_squared_error()


class ConfidenceCurve(Totals):
    """Accuracy and number of the rows at least as confident as each threshold (`accuracy_above`), streamed."""

    def __init__(self, thresholds: tuple[float, ...] = THRESHOLDS, *, void: int | None = None) -> None:
        self.thresholds, self.void = thresholds, void
        self.totals = {name: torch.zeros(len(thresholds), dtype=torch.float64) for name in ("kept", "hits")}

    def settings(self) -> tuple[object, ...]:
        """See `Totals`."""
        return (self.thresholds, self.void)

    def update(self, log_probs: Float[Tensor, "*batch class"], y: Int[Tensor, "*batch"]) -> None:
        """Add a batch; one whose labels are all void adds nothing."""
        if _all_void(y, self.void):
            return
        confidence, correct = top_label(log_probs, y, void=self.void)
        kept = confidence >= torch.tensor(self.thresholds, dtype=torch.float64, device=confidence.device)[:, None]
        self._add(kept=kept.sum(-1), hits=(kept & correct).sum(-1))

    def compute(self) -> ConfidentAccuracy:
        """The curve of all rows so far; NaN where no row is as confident."""
        return ConfidentAccuracy(self.totals["hits"] / self.totals["kept"], self.totals["kept"].long())


def _all_void(y: Tensor, void: int | None) -> bool:
    return void is not None and not bool((y != void).any())


def _at_least_one(rows: Tensor) -> Tensor:
    if not bool(rows > 0):
        raise ValueError("compute: no row has been added yet")
    return rows
