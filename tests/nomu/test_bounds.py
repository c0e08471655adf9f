"""Three ways to c, and the grid."""

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

from levelhead.nomu.bounds import (
    bounds,
    coverage_factor,
    gaussian_nll,
    logspace,
    mean_width_factor,
    nll_factor,
    search,
)
from levelhead.nomu.readout import Readout
from levelhead.predictive import GaussianMixture


def numbers(n: int = 101) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 1, generator=generator), 0.1 + torch.rand(n, 1, generator=generator)


def test_the_mean_width_is_met_exactly():
    _, std = numbers()
    c = mean_width_factor(std, budget=0.7)
    assert float((2 * c * std.double()).mean()) == pytest.approx(0.7)
    variance = std.square()[None]
    lower, upper = bounds(GaussianMixture(torch.zeros_like(variance), variance, model_variances=variance), c=c)
    assert float((upper - lower).mean()) == pytest.approx(0.7, rel=1e-5)


@pytest.mark.parametrize("level", [0.5, 0.9, 1.0])
def test_the_coverage_is_met_by_the_smallest_c(level):
    residual, std = numbers()
    c = coverage_factor(residual, std, level=level)

    def share(factor):
        return float((residual.double().abs() <= factor * std.double() * (1 + 1e-12)).double().mean())

    assert share(c) >= level
    assert share(c * (1 - 1e-6)) < level


def test_the_likelihood_is_greatest_at_its_c():
    residual, std = (t.double() for t in numbers())
    c = nll_factor(residual, std)

    def loss(factor):
        return float(-Normal(0.0, factor * std).log_prob(residual).mean())

    assert float(gaussian_nll(residual, (c * std).square())) == pytest.approx(loss(c))
    assert loss(c) < min(loss(1.01 * c), loss(0.99 * c))


def test_the_grid_finds_what_made_the_errors():
    generator = torch.Generator().manual_seed(1)
    raw = 4 * torch.rand(5000, 1, generator=generator, dtype=torch.float64) - 1
    truth = Readout(0.05, 3.0, 0.4)
    residual = truth(raw) * torch.randn(raw.shape, generator=generator, dtype=torch.float64)
    found = search(
        raw, residual, torch.zeros_like(raw), Readout(),
        l_min=(0.01, 0.05, 0.25), l_max=(1.0, 3.0, 9.0), c=(0.2, 0.4, 0.8),
    ).readout  # fmt: skip
    assert found == truth
    noisy = search(raw, residual, torch.full_like(raw, 100.0), Readout(), l_min=(0.05,), l_max=(3.0,), c=(0.1, 50.0))
    assert noisy.readout.c == 0.1
    assert noisy.nll == pytest.approx(float(gaussian_nll(residual, Readout(0.05, 3.0, 0.1)(raw) ** 2 + 100)))


def test_the_grid_is_even_in_logarithm():
    assert_close(torch.tensor(logspace(0.02, 100.0, 5)).log().diff().std(), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_settings_that_mean_nothing_are_refused():
    residual, std = numbers()
    with pytest.raises(ValueError, match="budget"):
        mean_width_factor(std, budget=0.0)
    with pytest.raises(ValueError, match="level"):
        coverage_factor(residual, std, level=0.0)
