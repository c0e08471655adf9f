"""Dead inputs: exact posteriors keep their weights' prior, whatever it is; a point estimate brings them to zero."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.likelihood import Categorical, Gaussian
from levelhead.network import Network
from levelhead.objectives.emp_cov_prior import EmpCovPrior
from levelhead.objectives.gaussian_prior import GaussianPrior
from levelhead.posthoc.laplace import Laplace
from levelhead.predictor import Point, WeightSamples
from levelhead.recipe import Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.samplers.hmc import HMC
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task

SCALE = 0.5
WEIGHT = "features.0.weight"


def task() -> Task:
    """Three features of which the last is 0 throughout; the label is the sign of the first."""
    x = torch.randn(46, 3, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 0.0
    y = (x[:, 0] > 0).long()
    bounds = {"train": (0, 40), "val": (40, 42), "calibration": (42, 44), "test": (44, 46)}
    return Task("dead", *(Split(n, x[a:b], y[a:b]) for n, (a, b) in bounds.items()), Categorical(2))


def backbone(signature) -> Network:
    return Network(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Linear(4, 2), signature, width=4)


def fitted(prior, sampler):
    return Recipe(backbone=backbone, regularisers=(prior,), sampler=sampler).fit(task(), 0, rehearsed=True)


def distance_to_normal(values: Tensor) -> float:
    """Kolmogorov's and Smirnov's, in units of 1 / sqrt(n): 1.95 is exceeded once in a thousand."""
    ordered = torch.special.ndtr(values.double().flatten().sort().values)
    n = len(ordered)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return float(torch.maximum((steps[1:] - ordered).max(), (ordered - steps[:-1]).max())) * math.sqrt(n)


PRIORS = {"gaussian": (GaussianPrior(SCALE), SCALE), "empcov": (EmpCovPrior(eps=1e-4, scale=SCALE), 1e-2)}


@pytest.mark.parametrize("prior, std", PRIORS.values(), ids=PRIORS)
def test_their_weights_have_the_priors_distribution_under_hmc(prior, std):
    sampler = HMC(epochs=1000, chains=1, prior_scale=None, step_size=0.2, target_acceptance=None, num_draws=80)
    posterior = fitted(prior, sampler)
    assert isinstance(posterior, WeightSamples)
    assert posterior.diagnostics["acceptance"] > 0.6
    assert distance_to_normal(posterior.draws[WEIGHT][:, :, 2] / std) < 1.95
    assert distance_to_normal(posterior.draws[WEIGHT][:, :, 0] / std) > 1.95


def test_a_point_estimate_brings_them_to_zero():
    point = fitted(GaussianPrior(SCALE), AdamW(epochs=400, batch_size=40, lr=0.02, weight_decay=0.0))
    weight = next(point.networks()).get_parameter(WEIGHT).detach()
    assert float(weight[:, 2].abs().max()) < 1e-3
    assert float(weight[:, 0].abs().max()) > 0.1


def test_linearised_laplace_keeps_the_mean_and_widens_by_the_prior_alone():
    """At x + delta e_dead the variance grows by delta^2 / prior_precision |df/dh|^2: the desired behaviour."""
    torch.manual_seed(0)
    x = torch.randn(46, 3, dtype=torch.float64)
    x[:, 2] = 0.0
    y = x[:, :1].sin()
    bounds = {"train": (0, 40), "val": (40, 42), "calibration": (42, 44), "test": (44, 46)}
    rows = Task("line", *(Split(n, x[a:b], y[a:b]) for n, (a, b) in bounds.items()), Gaussian())
    net = Network(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Linear(4, 2), rows.signature, width=4).double()
    with torch.no_grad():
        net.features[0].weight[:, 2] = 0.0
    posterior = Laplace(subset="all", structure="full", prior_precision=4.0)(Point(net).double(), rows)
    with torch.no_grad():
        before, after = (posterior(at) for at in (x[:5], x[:5] + torch.tensor([0.0, 0.0, 3.0])))
        slope = net.head.weight[0] * (1 - net.features(x[:5]).square())
    assert_close(after.mean, before.mean)
    assert_close(after.variance - before.variance, (9 / 4 * slope.square().sum(-1))[:, None])
