"""Which metrics a set of beliefs is scored by: the same names in every suite, so that tables line up."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from levelhead import detection
from levelhead.beliefs import Beliefs, ClassBeliefs, TargetBeliefs
from levelhead.measuring import Record
from levelhead.metrics.calibration import NUM_BINS, adaptive_ece, classwise_ece, equal_width_edges
from levelhead.metrics.diversity import MemberErrors, error_correlation
from levelhead.metrics.noise_floors import noise_floors
from levelhead.metrics.ranking import aurc, auroc
from levelhead.metrics.regression import (
    crps,
    interval_coverage,
    mae,
    mean_width,
    mixture_cdf,
    mixture_nll,
    quantile_calibration_error,
    sharpness,
)
from levelhead.metrics.regression_calibration import quantile_error_floor
from levelhead.metrics.rows import labelled_rows
from levelhead.metrics.smooth_calibration import smooth_ece

REPLICATES = 200  # of the bootstrap: a standard error within 5 %
COVERAGE = 0.95

_HIGHER = (
    *("accuracy", "failure_auroc", "brier_skill", "brier_resolution", "spherical"),
    *("relative_aulc", "rejection_ratio", "selective_accuracy80", "coverage_at_risk5", "pavpu", "member_accuracy"),
    *("accuracy_above50", "accuracy_above70", "accuracy_above90", "unsure_if_wrong90"),
)
_LOWER = (
    *("nll", "gaussian_nll", "brier", "ece", "smooth_ece", "adaptive_ece", "classwise_ece", "aurc", "set_size"),
    *("mce", "rmsce", "debiased_squared_ece", "sweep_ece", "kernel_ece", "top5_ece", "positive_ece"),
    *("adaptive_classwise_error", "thresholded_error", "brier_reliability", "excess_aurc", "augrc", "member_nll"),
    *("rmse", "mae", "crps", "quantile_error", "interval_error", "ence", "uce", "ause", "interval_score95"),
    *("energy_score", "selective_risk", "selective_rmse", "interval_width"),
    *("parameters", "stored_values", "multiply_adds", "seconds_per_example", "latency", "peak_memory"),
)
# Which way is better; metrics of which that cannot be said are absent: confidence, uncertainties, coverage, sharpness.
BETTER: Mapping[str, Literal["higher", "lower"]] = {
    **dict.fromkeys(_HIGHER, "higher"),
    **dict.fromkeys(_LOWER, "lower"),
}


def better(metric: str) -> Literal["higher", "lower"] | None:
    """Which way of a metric is better, detection scores of any name included; None where that cannot be said."""
    return BETTER.get(metric) or detection.better(metric)


def scores(beliefs: Beliefs) -> dict[str, float]:
    """Every metric of one set of beliefs against its targets; see `class_scores` and `target_scores`."""
    return class_scores(beliefs) if isinstance(beliefs, ClassBeliefs) else target_scores(beliefs)


def class_scores(beliefs: ClassBeliefs) -> dict[str, float]:
    """Metrics of beliefs about labels.

    accuracy, nll (nats), brier (sum over classes, in [0, 2]), ece (top label, 15 equal-width bins, closed last bin),
    each with `_se`: bootstrap over the rows, 200 replicates. smooth_ece, adaptive_ece, classwise_ece; these and ece
    with `_floor`: what they read when the probabilities are exactly right, on as many rows. confidence, and the
    uncertainties total, aleatoric and epistemic in nats, as means. Of a mixture: disagreement, pairwise_kl,
    member_accuracy and error_correlation (`levelhead.metrics.diversity`). aurc: area under risk against coverage, by
    confidence. failure_auroc: errors found by low confidence; absent where there are none, or nothing else. Prediction
    sets, where there are any: set_coverage, set_size. Where a selective step abstains: selective_coverage, the share
    of rows accepted, and selective_risk, the error rate among them. `levelhead.all_scores` has the metrics that few
    ask for.
    """
    log_probs, y = labelled_rows(beliefs.log_probs, beliefs.y)
    best, label = log_probs.max(dim=-1)
    confidence, correct = best.exp().clamp_max(1.0), label == y
    bins = F.one_hot(torch.bucketize(confidence, equal_width_edges(NUM_BINS)[1:-1]), NUM_BINS).double()
    columns = torch.cat(
        [
            torch.stack(
                [
                    correct.double(),
                    -log_probs[torch.arange(len(y)), y],
                    (log_probs.exp() - F.one_hot(y, log_probs.shape[-1])).square().sum(-1),
                ],
                dim=-1,
            ),
            (correct.double() - confidence)[:, None] * bins,
        ],
        dim=-1,
    )
    floors = noise_floors(log_probs)
    found = _with_errors(("accuracy", "nll", "brier", "ece"), columns, _headline)
    found |= {
        "ece_floor": float(floors.ece),
        "smooth_ece": float(smooth_ece(log_probs, y)),
        "smooth_ece_floor": float(floors.smooth_ece),
        "adaptive_ece": float(adaptive_ece(log_probs, y)),
        "adaptive_ece_floor": float(floors.adaptive_ece),
        "classwise_ece": float(classwise_ece(log_probs, y)),
        "classwise_ece_floor": float(floors.classwise_ece),
        "confidence": float(confidence.mean()),
        **_uncertainties(beliefs),
        "aurc": float(aurc(-confidence, ~correct)),
    }
    if 0 < int(correct.sum()) < len(y):
        found["failure_auroc"] = float(auroc(-confidence, ~correct))
    if beliefs.sets is not None:
        found["set_coverage"] = float(beliefs.sets[torch.arange(len(y)), y].double().mean())
        found["set_size"] = float(beliefs.sets.sum(-1).double().mean())
    if beliefs.disagreement is not None and beliefs.divergence is not None:
        found["disagreement"] = float(beliefs.disagreement.double().mean())
        found["pairwise_kl"] = float(beliefs.divergence.double().mean())
    if beliefs.member_errors is not None and beliefs.shared_errors is not None:
        errors = MemberErrors(beliefs.member_errors.double(), beliefs.shared_errors.double())
        found["member_accuracy"] = float(1 - errors.alone.mean())
        found["error_correlation"] = float(error_correlation(errors))
    if beliefs.accepted is not None:
        found["selective_coverage"] = float(beliefs.accepted.double().mean())
        found["selective_risk"] = float((~correct)[beliefs.accepted].double().mean())
    return found


def target_scores(beliefs: TargetBeliefs) -> dict[str, float]:
    """Metrics of beliefs about real targets, in the targets' units.

    rmse, nll (of the mixture, nats, summed over targets) and coverage95 (share of targets in the central 95 %
    interval), each with `_se`: bootstrap over the rows, 200 replicates. mae; gaussian_nll (of one Gaussian with the
    mixture's mean and variance, as UCI tables report); crps; quantile_error (0 when calibrated) and its `_floor`;
    sharpness (mean standard deviation); the uncertainties total, aleatoric and epistemic: variances, as means over
    rows. Prediction intervals, where there are any: interval_coverage and interval_width, over rows and targets. Where
    a selective step abstains: selective_coverage, and selective_rmse of the rows accepted.
    """
    mixture, y = beliefs.mixture, beliefs.y
    parts = {"log_weights": beliefs.log_weights}
    log_prob = _mixture_log_prob(beliefs)
    cdf = mixture_cdf(beliefs.means, beliefs.variances, y=y, **parts)
    inside = (cdf - 0.5).abs() <= COVERAGE / 2
    squared = (y.double() - mixture.mean.double()).square()
    columns = torch.stack([squared.mean(-1), -log_prob, inside.double().mean(-1)], dim=-1)
    found = _with_errors(("rmse", "nll", "coverage95"), columns, _root_first)
    if beliefs.intervals is not None:
        low, high = beliefs.intervals.unbind(-1)
        found["interval_coverage"] = float(interval_coverage(low, high, y=y).share)
        found["interval_width"] = float(mean_width(low, high))
    if beliefs.accepted is not None:
        found["selective_coverage"] = float(beliefs.accepted.double().mean())
        found["selective_rmse"] = float(squared[beliefs.accepted].mean().sqrt())
    return found | {
        "mae": float(mae(mixture.mean, y)),
        "gaussian_nll": float(mixture_nll(mixture.mean[None], mixture.variance[None], y=y)),
        "crps": float(crps(beliefs.means, beliefs.variances, y=y, **parts)),
        "quantile_error": float(quantile_calibration_error(cdf)),
        "quantile_error_floor": quantile_error_floor(cdf.numel()),
        "sharpness": float(sharpness(beliefs.means, beliefs.variances, **parts)),
        **_uncertainties(beliefs),
    }


def as_records(evaluation: str, data: str, severity: int | None, found: Mapping[str, float], rows: int) -> list[Record]:
    """One record a metric; values that are not finite are left out, as what could not be measured."""
    return [
        Record(evaluation, data, severity, metric, value, rows)
        for metric, value in found.items()
        if math.isfinite(value)
    ]


def resampled_means(
    columns: Float[Tensor, "row column"], *, replicates: int = REPLICATES, seed: int = 0
) -> Float[Tensor, "replicate column"]:
    """Means of every column over rows drawn with replacement, as often as `replicates`; the same draws for a seed."""
    num, generator = len(columns), torch.Generator().manual_seed(seed)
    at_once = max(1, 4_000_000 // num)
    means = []
    for start in range(0, replicates, at_once):
        rows = torch.randint(num, (min(at_once, replicates - start), num), generator=generator)
        counts = torch.zeros(rows.shape, dtype=torch.float64).scatter_add_(
            1, rows, torch.ones((), dtype=torch.float64).expand(rows.shape)
        )
        means.append(counts @ columns / num)
    return torch.cat(means)


def _with_errors(names: tuple[str, ...], columns: Tensor, statistic: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """A statistic of column means, and its bootstrap standard error."""
    values = statistic(columns.mean(0, keepdim=True))[0]
    errors = statistic(resampled_means(columns)).std(0)
    found = dict(zip(names, values.tolist(), strict=True))
    return found | {f"{name}_se": error for name, error in zip(names, errors.tolist(), strict=True)}


def _headline(means: Float[Tensor, "replicate column"]) -> Float[Tensor, "replicate metric"]:
    """accuracy, nll, brier as they are; ece = sum_b |mean over all rows of (correct - confidence) 1[in b]|."""
    return torch.cat([means[:, :3], means[:, 3:].abs().sum(-1, keepdim=True)], dim=-1)


def _root_first(means: Float[Tensor, "replicate column"]) -> Float[Tensor, "replicate metric"]:
    return torch.cat([means[:, :1].sqrt(), means[:, 1:]], dim=-1)


def _mixture_log_prob(beliefs: TargetBeliefs) -> Float[Tensor, " row"]:
    """Log density of each row under the mixture, in float64 as `mixture_nll` sums it."""
    double = type(beliefs.mixture)(beliefs.means.double(), beliefs.variances.double(), beliefs.log_weights.double())
    return double.log_prob(beliefs.y.double())


def _uncertainties(beliefs: Beliefs) -> dict[str, float]:
    return {
        "total": float(beliefs.total.double().mean()),
        "aleatoric": float(beliefs.aleatoric.double().mean()),
        "epistemic": float(beliefs.epistemic.double().mean()),
    }
