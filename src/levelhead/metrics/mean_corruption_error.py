"""Mean corruption error: one number for what corruptions cost, in units of what they cost a baseline.

Errors are given per corruption, each the mean over the five severities. The same formulas serve any number that is
better when lower, NLL and ECE among them.
"""

from collections.abc import Mapping

# of the test set of CIFAR-10-C and ImageNet-C; speckle noise, Gaussian blur, spatter and saturate are for validation
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
# mean error rates of AlexNet on ImageNet-C (arXiv 1903.12261, appendix) and its error rate on clean ImageNet
ALEXNET: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
ALEXNET_CLEAN = 0.4348


def corruption_errors(errors: Mapping[str, float], baseline: Mapping[str, float] | None = None) -> dict[str, float]:
    """CE_c = E_c / B_c for every corruption c of `errors`; without a baseline, E_c itself.

    Raises ValueError where the baseline lacks a corruption, or has no error to divide by.
    """
    if baseline is None:
        return dict(errors)
    _check(errors, baseline)
    return {name: _ratio(name, value, baseline[name]) for name, value in errors.items()}


def relative_corruption_errors(
    errors: Mapping[str, float],
    clean: float,
    baseline: Mapping[str, float] | None = None,
    baseline_clean: float | None = None,
) -> dict[str, float]:
    """(E_c - E_clean) / (B_c - B_clean): what the corruption adds; without a baseline, the numerator.

    Raises ValueError as `corruption_errors` does; also where a corruption costs the baseline nothing.
    """
    if baseline is None:
        return {name: value - clean for name, value in errors.items()}
    if baseline_clean is None:
        raise ValueError("relative_corruption_errors: a baseline wants its error on clean rows: baseline_clean")
    _check(errors, baseline)
    return {name: _ratio(name, value - clean, baseline[name] - baseline_clean) for name, value in errors.items()}


def mean_corruption_error(errors: Mapping[str, float], baseline: Mapping[str, float] | None = None) -> float:
    """mCE = mean over corruptions of CE_c: 1 for the baseline itself; papers on ImageNet-C print 100 mCE.

    `baseline=ALEXNET` for ImageNet-C. CIFAR-10-C has no published baseline: without one, this is the mean error.
    Hendrycks and Dietterich 2019, arXiv 1903.12261. Raises ValueError without errors, and as `corruption_errors`.

    >>> mean_corruption_error({"fog": 0.2, "snow": 0.3}, {"fog": 0.4, "snow": 0.2})
    1.0
    """
    return _mean(corruption_errors(errors, baseline))


def relative_mean_corruption_error(
    errors: Mapping[str, float],
    clean: float,
    baseline: Mapping[str, float] | None = None,
    baseline_clean: float | None = None,
) -> float:
    """The mean over corruptions of `relative_corruption_errors`; AlexNet's clean error is `ALEXNET_CLEAN`."""
    return _mean(relative_corruption_errors(errors, clean, baseline, baseline_clean))


def _mean(values: Mapping[str, float]) -> float:
    if not values:
        raise ValueError("mean corruption error: wants the error of at least one corruption")
    return sum(sorted(values.values())) / len(values)  # sorted: sums must not depend on the order


def _check(errors: Mapping[str, float], baseline: Mapping[str, float]) -> None:
    missing = [name for name in errors if name not in baseline]
    if missing:
        raise ValueError(f"mean corruption error: the baseline has no {', '.join(missing)}")


def _ratio(name: str, value: float, unit: float) -> float:
    if unit <= 0:
        raise ValueError(
            f"mean corruption error: {name} costs the baseline {unit:.3g}, which nothing can be divided by"
        )
    return value / unit
