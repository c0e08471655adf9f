"""The sum-filter prior against integrals and weighted Gaussian draws."""

import math

import pytest
import torch
from contracts.styles import made
from networks import network
from torch.testing import assert_close

from levelhead.objectives.gaussian_prior import GaussianPrior
from levelhead.objectives.sum_filter_prior import SumFilterPrior
from levelhead.priors.filters import SummedFilters
from levelhead.tasks.stripes import stripes
from levelhead.training import Run

TASK = stripes(n=24, size=12)


def piece(net, **settings) -> SummedFilters:
    found = SumFilterPrior(**settings).start(net, TASK, Run(0)).pieces[0]
    assert isinstance(found, SummedFilters)
    return found


def test_the_energy_of_a_convolution_sums_each_kernel():
    net = made("lenet")
    found = piece(net, scale=0.5, strength=7.0)
    weight = net.get_parameter(found.names[0])
    expected = 2 * weight.square().sum() + 3.5 * weight.sum((2, 3)).abs().sum()
    assert_close(found.energy(net), expected)


def test_without_strength_it_is_the_gaussian_prior():
    net = network()
    specs = (SumFilterPrior(0.3, strength=0.0), GaussianPrior(0.3))
    both = [spec.start(net, TASK, Run(0)).log_prob(net) for spec in specs]
    assert_close(both[0], both[1])


@pytest.mark.parametrize("strength", [0.5, 4.0, 60.0])
def test_its_constant_draws_and_variance_against_an_integral_over_the_sum(strength):
    """A neuron's sum S has the density N(S; 0, K scale^2) exp(-strength |S| / 2) / Z."""
    net, scale = network().double(), 0.6
    found = piece(net, scale=scale, strength=strength)
    s = torch.linspace(0, 12, 400_001, dtype=torch.float64)
    density = 2 * torch.exp(-s.square() / (2 * 4 * scale**2) - strength * s / 2)
    density /= math.sqrt(2 * math.pi * 4 * scale**2)
    z = torch.trapezoid(density, s)
    gaussian = 20 * (math.log(scale) + 0.5 * math.log(2 * math.pi))
    assert_close(found.log_z(net), gaussian + 5 * math.log(float(z)), rtol=1e-6, atol=0)
    of_sum = torch.trapezoid(s.square() * density, s) / z
    ones, apart = torch.ones(4, dtype=torch.float64) / 2, torch.tensor([1.0, -1, 0, 0], dtype=torch.float64) / 2**0.5
    expected = torch.stack([of_sum / 4, torch.tensor(scale**2, dtype=torch.float64)])
    assert_close(found.variance(net, torch.stack([ones, apart], 1)), expected, rtol=1e-5, atol=0)
    torch.manual_seed(0)
    drawn = torch.cat([found.draw(net)[found.names[0]] for _ in range(2000)])
    got = torch.stack([(drawn @ ones).var(), (drawn @ apart).var()])
    assert_close(got, expected, rtol=0.12, atol=0)


def test_very_steep_sums_are_exponential():
    net = network().double()
    found = piece(net, scale=0.5, strength=2e4)
    torch.manual_seed(0)
    sums = torch.cat([found.draw(net)[found.names[0]].sum(1) for _ in range(1000)])
    assert_close(sums.abs().mean(), torch.tensor(1e-4, dtype=torch.float64), rtol=0.1, atol=0)


def test_a_negative_strength_is_refused():
    with pytest.raises(ValueError, match="strength"):
        SumFilterPrior(strength=-1.0)
