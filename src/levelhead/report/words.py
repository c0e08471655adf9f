"""How metrics and numbers are written: one name, one unit and one number of digits each, on the whole page."""

import math
from dataclasses import dataclass

from levelhead.report.evidence import Estimate

MINUS = "\u2212"


@dataclass(frozen=True)
class Metric:
    """A metric's name, its explanation, and how its numbers are written: times `factor`, rounded to `digits`."""

    name: str
    text: str
    digits: int = 3
    factor: float = 1.0
    unit: str = ""

    def write(self, value: float) -> str:
        """A number of this metric, with its unit."""
        return f"{self.bare(value)}{self.unit}"

    def bare(self, value: float, *, digits: int | None = None) -> str:
        """A number without its unit; large ones have fewer digits, unless told how many."""
        if not math.isfinite(value):
            return "not known"
        shown = value * self.factor
        return f"{shown:,.{self.digits_of(value) if digits is None else digits}f}".replace("-", MINUS)

    def digits_of(self, value: float) -> int:
        """Digits after the point: four or so in all."""
        size = abs(value * self.factor)
        return self.digits if size < 10 else max(0, min(self.digits, 3 - math.floor(math.log10(size))))

    def write_error(self, estimate: Estimate) -> str:
        """A standard error, with the digits of the number it belongs to, or one that is not zero."""
        text = self.bare(estimate.error, digits=self.digits_of(estimate.mean))
        small = estimate.error * self.factor
        return f"{small:.1g}" if small >= 1e-4 and not float(text.replace(",", "")) else text

    def write_estimate(self, estimate: Estimate) -> str:
        """A number with its standard error, as text."""
        if not math.isfinite(estimate.error):
            return self.write(estimate.mean)
        return f"{self.bare(estimate.mean)} ± {self.write_error(estimate)}{self.unit}"


METRICS = {
    "accuracy": Metric("Accuracy", "share of right answers, in percent; higher is better", 1, 100.0, " %"),
    "nll": Metric("NLL", "negative log likelihood, in nats; lower is better"),
    "brier": Metric("Brier", "squared error of the probabilities, in [0, 2]; lower is better"),
    "ece": Metric("ECE", "expected calibration error, in percent; lower is better", 1, 100.0),
    "ece_floor": Metric("floor", "what ECE reads on as many rows when the probabilities are exactly right", 1, 100.0),
    "auroc_total": Metric("AUROC", "area under the ROC curve of the predictive entropy; higher is better"),
    "rmse": Metric("RMSE", "root mean squared error, in the target's units; lower is better"),
    "mae": Metric("MAE", "mean absolute error, in the target's units; lower is better"),
    "gaussian_nll": Metric(
        "Gaussian NLL", "NLL of one Gaussian with the mixture's mean and variance, as published tables have it"
    ),
    "crps": Metric("CRPS", "continuous ranked probability score, in the target's units; lower is better"),
    "coverage95": Metric(
        "Coverage", "share of targets inside the central 95 % interval, in percent; 95 is right", 1, 100.0, " %"
    ),
    "quantile_error": Metric("Quantile error", "distance of the quantiles from calibrated ones; lower is better"),
    "sharpness": Metric("Width", "mean predictive standard deviation, in the target's units"),
    "member_accuracy": Metric("One member", "mean accuracy of the members alone, in percent", 1, 100.0, " %"),
    "disagreement": Metric(
        "Disagreement", "share of pairs of members that prefer different classes, in percent", 1, 100.0, " %"
    ),
    "pairwise_kl": Metric("Pairwise KL", "mean divergence between two members, in nats"),
    "error_correlation": Metric("Error correlation", "of the errors of two members: 1 for copies, 0 for strangers", 2),
    "train_seconds": Metric("Training", "seconds to train", 0, 1.0, " s"),
}


def metric(name: str) -> Metric:
    """What is known of a metric, or its bare name."""
    return METRICS.get(name, Metric(name, name.replace("_", " ")))


def unit(what: Metric) -> str:
    """The unit that follows a metric's name where its numbers stand bare."""
    return ", %" if what.factor == 100.0 else ""


def compact(value: float) -> str:
    """A large count in few signs: 78k, 1.2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def times(ratio: float) -> str:
    """A ratio: 1, 1.3 or 12 times."""
    return f"{ratio:.2g}×" if ratio < 9.95 else f"{ratio:.0f}×"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 600:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.1f} h"


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count and its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listed(items: list[str], *, word: str = "and") -> str:
    """a, b and c."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {word} {items[-1]}"


def spoken(name: str) -> str:
    """A set's name for readers: gaussian_noise is Gaussian noise."""
    return name.replace("_", " ").replace("gaussian", "Gaussian").replace("fgsm", "FGSM").replace("pgd", "PGD")
