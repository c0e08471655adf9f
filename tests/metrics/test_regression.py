import math

import numpy as np
import pytest
import scoringrules
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor
from torch.testing import assert_close

from levelhead.metrics.regression import (
    central_coverage,
    crps,
    interval_coverage,
    mae,
    mean_width,
    mixture_cdf,
    mixture_nll,
    mixture_quantile,
    quantile_calibration_error,
    rmse,
    sharpness,
)
from levelhead.predictive import GaussianMixture


def mixture(members: int = 3, rows: int = 20, targets: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (members, rows, targets)
    means = torch.randn(shape, generator=generator, dtype=torch.float64)
    variances = 0.1 + torch.rand(shape, generator=generator, dtype=torch.float64)
    y = torch.randn(rows, targets, generator=generator, dtype=torch.float64)
    return means, variances, y, torch.randn(members, generator=generator, dtype=torch.float64).log_softmax(0)


def test_crps_of_one_gaussian_agrees_with_the_closed_form() -> None:
    means, variances, y, _ = mixture(members=1)
    m, s, t = (v.flatten().numpy() for v in (means, variances.sqrt(), y))
    z = (t - m) / s
    closed = s * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert float(crps(means, variances, y=y)) == pytest.approx(closed.mean())
    assert float(crps(means, variances, y=y)) == pytest.approx(scoringrules.crps_normal(t, m, s).mean())


@pytest.mark.parametrize("weighted", [False, True])
def test_crps_of_a_mixture_agrees_with_scoringrules(weighted: bool) -> None:
    means, variances, y, log_weights = mixture()
    ours = crps(means, variances, y=y, log_weights=log_weights if weighted else None)
    weights = log_weights.exp().numpy() if weighted else np.full(3, 1 / 3)
    theirs = scoringrules.crps_mixnorm(
        y[:, 0].numpy(), means[..., 0].T.numpy(), variances[..., 0].sqrt().T.numpy(), np.tile(weights, (20, 1))
    )
    assert float(ours) == pytest.approx(theirs.mean())


def test_crps_is_the_integral_of_the_squared_cdf_error() -> None:
    means, variances, y, log_weights = mixture(rows=1)
    x = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    cdf = mixture_cdf(
        means.expand(3, len(x), 1), variances.expand(3, len(x), 1), y=x[:, None], log_weights=log_weights
    )[:, 0]
    integral = torch.trapezoid((cdf - (x >= y[0, 0]).double()).square(), x)
    assert float(crps(means, variances, y=y, log_weights=log_weights)) == pytest.approx(float(integral), abs=1e-3)


def test_crps_limits() -> None:
    means, variances, y, _ = mixture(members=1)
    assert float(crps(means, 0 * variances, y=y)) == pytest.approx(float(mae(means[0], y)))
    doubled = crps(means.repeat(2, 1, 1), variances.repeat(2, 1, 1), y=y)
    assert_close(doubled, crps(means, variances, y=y))


@given(seed=st.integers(0, 1000), shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
def test_location_and_scale(seed: int, shift: float, scale: float) -> None:
    means, variances, y, w = mixture(seed=seed)
    moved = (shift + scale * means, scale**2 * variances)
    there = shift + scale * y
    assert_close(crps(*moved, y=there, log_weights=w), scale * crps(means, variances, y=y, log_weights=w))
    nll = mixture_nll(means, variances, y=y, log_weights=w)
    assert_close(mixture_nll(*moved, y=there, log_weights=w), nll + math.log(scale), rtol=1e-6, atol=1e-6)
    assert_close(sharpness(*moved, log_weights=w), scale * sharpness(means, variances, log_weights=w))


@pytest.mark.parametrize("targets", [1, 3])
def test_nll_agrees_with_the_predictive_and_scipy(targets: int) -> None:
    means, variances, y, w = mixture(targets=targets)
    predictive = GaussianMixture(means, variances, log_weights=w)
    assert_close(mixture_nll(means, variances, y=y, log_weights=w), -predictive.log_prob(y).mean())
    joint = np.prod([norm.pdf(y[:, t], means[..., t], variances[..., t].sqrt()) for t in range(targets)], axis=0)
    assert float(mixture_nll(means, variances, y=y)) == pytest.approx(-np.log(joint.mean(0)).mean())
    assert_close(sharpness(means, variances, log_weights=w), predictive.stddev.mean())


def test_float32_inputs_are_accumulated_in_float64() -> None:
    means, variances, y, _ = (t.float() for t in mixture())
    assert mixture_nll(means, variances, y=y).dtype == torch.float64
    assert crps(means, variances, y=y).dtype == torch.float64
    assert rmse(means[0], y).dtype == torch.float64


def test_errors_of_the_mean() -> None:
    mean, y = torch.tensor([[0.0], [3.0]]), torch.tensor([[4.0], [0.0]])
    assert float(rmse(mean, y)) == pytest.approx(math.sqrt((16 + 9) / 2))
    assert float(mae(mean, y)) == 3.5


@pytest.mark.parametrize("level", [0.025, 0.5, 0.975])
def test_quantile_inverts_the_cdf(level: float) -> None:
    means, variances, _, w = mixture(targets=2)
    quantile = mixture_quantile(means, variances, level=level, log_weights=w)
    cdf = mixture_cdf(means, variances, y=quantile, log_weights=w)
    assert_close(cdf, torch.full_like(cdf, level), rtol=0, atol=1e-10)
    one = mixture_quantile(means[:1], variances[:1], level=level)
    np.testing.assert_allclose(one.numpy(), norm.ppf(level, means[0], variances[0].sqrt()), rtol=1e-8, atol=1e-8)


def test_coverage_by_interval_and_by_cdf_agree_and_are_nominal() -> None:
    means, variances, _, w = mixture(rows=5000, seed=3)
    generator = torch.Generator().manual_seed(0)
    member = torch.multinomial(w.exp(), 5000, replacement=True, generator=generator)
    rows = torch.arange(5000)
    noise = torch.randn(5000, 1, generator=generator, dtype=torch.float64)
    y = means[member, rows] + variances[member, rows].sqrt() * noise
    bounds = [mixture_quantile(means, variances, level=t, log_weights=w) for t in (0.05, 0.95)]
    by_interval = interval_coverage(*bounds, y=y, level=0.9)
    cdf = mixture_cdf(means, variances, y=y, log_weights=w)
    assert_close(central_coverage(cdf, level=0.9).share, by_interval.share)
    assert abs(float(by_interval.share) - 0.9) < 3 * float(by_interval.standard_error)
    assert float(by_interval.standard_error) == pytest.approx(math.sqrt(0.9 * 0.1 / 5000))
    assert float(mean_width(*bounds)) > 0
    assert float(quantile_calibration_error(cdf)) < 0.02


def test_quantile_calibration_against_a_loop() -> None:
    cdf = torch.tensor([[0.1], [0.5], [0.5], [0.9]]).double()
    errors = [abs(sum(c <= t for c in (0.1, 0.5, 0.5, 0.9)) / 4 - t) for t in (0.25, 0.5, 0.75)]
    assert float(quantile_calibration_error(cdf, levels=3)) == pytest.approx(sum(errors) / 3)


def test_a_biased_mean_shows() -> None:
    generator = torch.Generator().manual_seed(0)
    cdf = torch.special.ndtr(torch.randn(5000, 1, generator=generator, dtype=torch.float64) + 1.0)
    assert float(quantile_calibration_error(cdf)) > 0.2


def test_bad_numbers_are_named() -> None:
    means, variances, y, _ = mixture()
    with pytest.raises(ValueError, match="variances"):
        crps(means, -variances, y=y)
    with pytest.raises(ValueError, match="variances"):
        mixture_nll(means, 0 * variances, y=y)
    with pytest.raises(ValueError, match="level"):
        mixture_quantile(means, variances, level=1.0)
    with pytest.raises(ValueError, match="level"):
        central_coverage(y, level=0.0)
