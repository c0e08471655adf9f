"""Retained prior variance by direction: draws of the prior keep all of it, along dead inputs and everywhere."""

import pytest
import torch
from networks import network
from torch import nn
from torch.testing import assert_close

from levelhead.likelihood import Categorical
from levelhead.network import Network
from levelhead.objectives.emp_cov_prior import EmpCovPrior
from levelhead.objectives.gaussian_prior import GaussianPrior
from levelhead.objectives.laplace_prior import LaplacePrior
from levelhead.objectives.student_t_prior import StudentTPrior
from levelhead.predictor import Point, WeightSamples
from levelhead.priors.exposure import null_space_exposure
from levelhead.tasks.split import Split
from levelhead.tasks.task import Task
from levelhead.training import Run
from levelhead.types import CannotCompose

NAME = "features.0.weight"


def task() -> Task:
    """Four features, the last of which never varies; the third is twice the first."""
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 1.0, 0.0])
    x[:, 2] = 2 * x[:, 0]
    y = torch.arange(60) % 3
    bounds = {"train": (0, 30), "val": (30, 40), "calibration": (40, 50), "test": (50, 60)}
    return Task("table", *(Split(n, x[a:b], y[a:b]) for n, (a, b) in bounds.items()), Categorical(3))


@pytest.mark.parametrize(
    "prior", [GaussianPrior(0.3), LaplacePrior(0.3), StudentTPrior(0.3, 9.0), EmpCovPrior(0.5, 0.01)], ids=str
)
def test_draws_of_the_prior_keep_all_of_it(prior):
    made = network()
    term = prior.start(made, task(), Run(0))
    torch.manual_seed(0)
    draws = torch.stack([term.draw(made)[NAME] for _ in range(2000)])
    found = null_space_exposure(WeightSamples(made, {NAME: draws}, num_chains=2), task(), prior)
    assert found.layer == "features.0"
    assert_close(found.retained, torch.ones(4, dtype=torch.float64), rtol=0, atol=0.12)
    assert int((found.inputs < 1e-12 * found.inputs[0]).sum()) == 2


def test_directions_are_those_of_the_inputs_and_chains_are_not_mixed():
    made, rows = network(), task()
    covariance = torch.cov(rows.train.x.double().T, correction=0)
    variances, axes = torch.linalg.eigh(covariance)
    leading = axes[:, -1].float()
    torch.manual_seed(0)
    along = torch.randn(600, 5, 1) * leading + 9 * torch.arange(2).repeat_interleave(300)[:, None, None]
    found = null_space_exposure(WeightSamples(made, {NAME: along}, num_chains=2), rows, GaussianPrior(0.5))
    assert_close(found.inputs, variances.flip(0).clamp_min(0), atol=1e-9, rtol=1e-6)
    assert_close(found.retained, torch.tensor([4.0, 0.0, 0.0, 0.0], dtype=torch.float64), rtol=0.15, atol=1e-5)


def test_what_has_no_draws_no_prior_or_groups_is_refused():
    made, rows = network(), task()
    draws = {NAME: torch.randn(2, 5, 4)}
    with pytest.raises(CannotCompose, match="no draws"):
        null_space_exposure(Point(made), rows, GaussianPrior())
    with pytest.raises(ValueError, match="two draws"):
        null_space_exposure(WeightSamples(made, draws, num_chains=2), rows, GaussianPrior())
    grouped = nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Conv1d(2, 4, 1, groups=2), nn.Flatten())
    made = Network(grouped, nn.Linear(8, 3), rows.signature, width=8)
    with pytest.raises(CannotCompose, match="grouped"):
        null_space_exposure(WeightSamples(made, {"features.1.weight": torch.randn(2, 4, 1, 1)}), rows, GaussianPrior())
