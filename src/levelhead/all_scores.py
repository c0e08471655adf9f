"""The metrics that few ask for: all that stored beliefs give beyond `levelhead.scores`, at several times the cost.

`clean(metrics='all')` measures them on test rows. Those that are undefined for some rows (no errors, one class) are
absent, as are all that are not finite.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from levelhead.beliefs import Beliefs, ClassBeliefs, TargetBeliefs
from levelhead.metrics.calibration import adaptive_classwise_error, overconfidence
from levelhead.metrics.calibration_tests import kolmogorov_smirnov, kuiper, logistic_refit, spiegelhalter
from levelhead.metrics.calibration_variants import (
    debiased_ece,
    mce,
    positive_ece,
    rmsce,
    sweep_ece,
    thresholded_error,
    top_k_ece,
)
from levelhead.metrics.classification import brier_decomposition, brier_skill, spherical
from levelhead.metrics.diversity import (
    disagreement,
    normalised_disagreement,
    pairwise_cosine,
    pairwise_js,
    pairwise_kl,
    variation_ratio,
)
from levelhead.metrics.intervals import interval_score
from levelhead.metrics.kernel_calibration import kernel_ece
from levelhead.metrics.pavpu import pavpu
from levelhead.metrics.prediction_sets import class_coverage, empty_share
from levelhead.metrics.ranking import accuracy_above, augrc, excess_aurc, unsure_if_wrong
from levelhead.metrics.regression import interval_coverage, mae, mean_width, mixture_cdf, mixture_quantile, rmse
from levelhead.metrics.regression_calibration import (
    ause,
    ence,
    ence_floor,
    interval_calibration_error,
    pit_test,
    spread_bins,
    spread_variation,
    uce,
)
from levelhead.metrics.rows import labelled_rows, top_label
from levelhead.metrics.samples import energy_score, sample_crps
from levelhead.metrics.selective import coverage_at_risk, rejection_ratio, relative_aulc, selective_accuracy
from levelhead.scores import scores
from levelhead.types import Scalar

MIN_COUNT = 30  # rows of a bin that the maximum calibration error looks at
CONFIDENT = (0.5, 0.7, 0.9)
COVERAGE, RISK = 0.8, 0.05
LEVEL = 0.95
PAIRS: Mapping[str, Callable[[Tensor], Scalar]] = {
    "disagreement": disagreement,
    "variation_ratio": variation_ratio,
    "pairwise_kl": pairwise_kl,
    "pairwise_js": pairwise_js,
    "pairwise_cosine": pairwise_cosine,
}


def all_scores(beliefs: Beliefs) -> dict[str, float]:
    """`scores`, and everything else that the beliefs give: `more_class_scores` or `more_target_scores`."""
    more = more_class_scores(beliefs) if isinstance(beliefs, ClassBeliefs) else more_target_scores(beliefs)
    return scores(beliefs) | more


def more_class_scores(beliefs: ClassBeliefs) -> dict[str, float]:
    """Metrics of beliefs about labels, each as `levelhead.metrics` has it.

    mce (bins of 30 rows or more), rmsce, debiased_squared_ece, sweep_ece, kernel_ece, top5_ece (more than five
    classes), adaptive_classwise_error, thresholded_error (p >= 0.01), positive_ece (two classes). p values of
    spiegelhalter, kolmogorov_smirnov, kuiper; calibration_slope, calibration_intercept. brier_skill and the five terms
    of the Brier score, spherical. excess_aurc, augrc, relative_aulc, rejection_ratio by confidence;
    selective_accuracy80, coverage_at_risk5; accuracy and share of the rows of confidence at least 50, 70, 90 %;
    unsure_if_wrong90: share of the wrong rows that have less; overconfidence: mean confidence - accuracy.
    pavpu: mean over 21 thresholds of the entropy. Prediction sets: set_empty_share, set_worst_class_coverage.
    """
    log_probs, y = labelled_rows(beliefs.log_probs, beliefs.y)
    confidence, correct = top_label(log_probs, y)
    num_classes = log_probs.shape[-1]
    refit = logistic_refit(confidence, correct)
    found = {
        "mce": mce(log_probs, y, min_count=MIN_COUNT),
        "rmsce": rmsce(log_probs, y),
        "debiased_squared_ece": debiased_ece(log_probs, y).squared,
        "sweep_ece": sweep_ece(log_probs, y).error,
        "kernel_ece": kernel_ece(log_probs, y),
        "adaptive_classwise_error": adaptive_classwise_error(log_probs, y),
        "thresholded_error": thresholded_error(log_probs, y),
        **{f"{t.__name__}_p": t(confidence, correct).p_value for t in (spiegelhalter, kolmogorov_smirnov, kuiper)},
        "calibration_slope": refit.slope,
        "calibration_intercept": refit.intercept,
        "brier_skill": brier_skill(log_probs, y),
        **{f"brier_{name}": value for name, value in brier_decomposition(log_probs, y)._asdict().items()},
        "spherical": spherical(log_probs, y),
        "excess_aurc": excess_aurc(-confidence, ~correct),
        "augrc": augrc(-confidence, ~correct),
        "selective_accuracy80": selective_accuracy(-confidence, ~correct, coverage=COVERAGE),
        "coverage_at_risk5": coverage_at_risk(-confidence, ~correct, risk=RISK).coverage,
        "pavpu": pavpu(beliefs.total, correct).pavpu.mean(),
        "overconfidence": overconfidence(log_probs, y),
        "unsure_if_wrong90": unsure_if_wrong(log_probs, y, threshold=0.9),
    }
    if num_classes > 5:
        found["top5_ece"] = top_k_ece(log_probs, y, k=5)
    if num_classes == 2:
        found["positive_ece"] = positive_ece(log_probs[:, 1].exp().clamp_max(1.0), y == 1)
    if 0 < int(correct.sum()) < len(y):
        found["relative_aulc"] = relative_aulc(-confidence, ~correct)
        found["rejection_ratio"] = rejection_ratio(-confidence, ~correct)
    curve = accuracy_above(log_probs, y, thresholds=CONFIDENT)
    for threshold, accuracy, count in zip(CONFIDENT, *curve, strict=True):
        found[f"accuracy_above{threshold:.0%}".removesuffix("%")] = accuracy
        found[f"share_above{threshold:.0%}".removesuffix("%")] = count.double() / len(y)
    if beliefs.sets is not None:
        found["set_empty_share"] = empty_share(beliefs.sets)
        found["set_worst_class_coverage"] = class_coverage(beliefs.sets, y).nan_to_num(nan=1.0).amin()
    return _finite(found)


def more_target_scores(beliefs: TargetBeliefs) -> dict[str, float]:
    """Metrics of beliefs about real targets, over rows and targets together, in target units.

    interval_error (central intervals, where quantile_error has one-sided quantiles), pit_p (uniformity of F(y)), ence
    with its floor, uce, spread_variation, ause (by standard deviation; root mean square), interval_score95 and width95
    of the mixture's central interval.
    """
    parts = {"log_weights": beliefs.log_weights}
    cdf = mixture_cdf(beliefs.means, beliefs.variances, y=beliefs.y, **parts)
    tail = (1 - LEVEL) / 2
    lower, upper = (
        mixture_quantile(beliefs.means, beliefs.variances, level=level, **parts) for level in (tail, 1 - tail)
    )
    mixture = beliefs.mixture
    std, error = mixture.stddev.flatten(), (beliefs.y - mixture.mean).flatten()
    found: dict[str, Scalar | float] = {
        "interval_error": interval_calibration_error(cdf),
        "pit_p": pit_test(cdf).p_value,
        "ence": ence(std, error),
        "ence_floor": ence_floor(len(std), bins=len(spread_bins(std, error).rows)),
        "uce": uce(std, error),
        "ause": ause(std, error),
        "interval_score95": interval_score(lower, upper, y=beliefs.y, level=LEVEL),
        "width95": mean_width(lower, upper),
    }
    if len(std) > 1:
        found["spread_variation"] = spread_variation(std)
    return _finite(found)


def member_scores(log_probs: Float[Tensor, "member row class"], y: Int[Tensor, " row"]) -> dict[str, float]:
    """How the members of a mixture differ, and how good they are alone: print the ones beside the others.

    member_accuracy and member_nll are means over members; disagreement, normalised_disagreement, variation_ratio,
    pairwise_kl, pairwise_js, pairwise_cosine as in `levelhead.metrics.diversity`.
    """
    log_probs = log_probs.double()
    rows = torch.arange(len(y), device=y.device)
    found: dict[str, Scalar | float] = {
        "member_accuracy": (log_probs.argmax(-1) == y).double().mean(),
        "member_nll": -log_probs[:, rows, y.long()].mean(),
    }
    if len(log_probs) > 1:
        found |= {name: metric(log_probs) for name, metric in PAIRS.items()}
        found["normalised_disagreement"] = normalised_disagreement(log_probs, y)
    return _finite(found)


def sample_scores(draws: Float[Tensor, "draw row target"], y: Float[Tensor, "row target"]) -> dict[str, float]:
    """Metrics of draws from a predictive without a density, in target units.

    rmse of the draws' mean, mae of their median, fair crps and energy_score (two draws or more); coverage95 and width95
    of the interval between their quantiles, which few draws make too narrow. total: variance, summed over targets.
    """
    draws, y = draws.double(), y.double()
    tail = (1 - LEVEL) / 2
    lower, upper = (draws.quantile(level, dim=0) for level in (tail, 1 - tail))
    found: dict[str, Scalar | float] = {
        "rmse": rmse(draws.mean(0), y),
        "mae": mae(draws.quantile(0.5, dim=0), y),
        "coverage95": interval_coverage(lower, upper, y=y, level=LEVEL).share,
        "width95": mean_width(lower, upper),
    }
    if len(draws) > 1:
        found |= {"crps": sample_crps(draws, y), "energy_score": energy_score(draws, y)}
        found["total"] = draws.var(0).sum(-1).mean()
    return _finite(found)


def _finite(found: dict[str, Scalar | float]) -> dict[str, float]:
    numbers = {name: float(value) for name, value in found.items()}
    return {name: value for name, value in numbers.items() if abs(value) < float("inf")}  # NaN compares as False
