"""Acquisition functions against integrals."""

import torch
from torch.distributions import Normal
from torch.testing import assert_close

from levelhead.bayesian_optimisation.acquisition import expected_improvement, probability_of_improvement, upper_bound

MEAN = torch.tensor([-1.0, 0.0, 0.5, 2.0], dtype=torch.float64)
STD = torch.tensor([0.5, 1.0, 0.1, 0.7], dtype=torch.float64)
GRID = torch.linspace(-12, 12, 200_001, dtype=torch.float64)


def average(function):
    """E function(f) for f normal, a row a point."""
    f = MEAN[:, None] + STD[:, None] * GRID
    return torch.trapezoid(function(f) * Normal(0.0, 1.0).log_prob(GRID).exp(), GRID)


def test_expected_improvement_is_the_mean_improvement():
    assert_close(expected_improvement(MEAN, STD, best=0.3), average(lambda f: (f - 0.3).clamp_min(0)))


def test_probability_of_improvement_is_the_share_above():
    expected = average(lambda f: (f > 0.3).double())
    assert_close(probability_of_improvement(MEAN, STD, best=0.3), expected, atol=1e-4, rtol=1e-4)


def test_the_bound_is_c_deviations_above():
    assert_close(upper_bound(MEAN, STD, c=2.0), MEAN + 2 * STD)


def test_without_uncertainty_only_what_is_better_is_worth_something():
    still = torch.zeros(2, dtype=torch.float64)
    gain = expected_improvement(torch.tensor([0.2, 0.7], dtype=torch.float64), still, best=0.5)
    assert_close(gain, torch.tensor([0.0, 0.2], dtype=torch.float64))
