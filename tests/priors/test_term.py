"""Priors of independent weights against torch's distributions, in energies, constants, scores and draws."""

import copy
import math

import pytest
import torch
from networks import Scaled, network
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.catalogue import parts
from levelhead.forward import Extended, Forward, extend, network_loss
from levelhead.objectives.gaussian_prior import GaussianPrior
from levelhead.objectives.laplace_prior import LaplacePrior
from levelhead.objectives.student_t_prior import StudentTPrior
from levelhead.priors.term import Prior
from levelhead.surgeries.mean_field import MeanField
from levelhead.tasks.stripes import stripes
from levelhead.training import Run
from levelhead.types import Batch, CannotCompose

TASK = stripes(n=24, size=12)
BATCH = Batch(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(6))
SCALE = 0.7
ZERO = torch.zeros((), dtype=torch.float64)
CASES = {
    "gaussian": (GaussianPrior(SCALE), torch.distributions.Normal(ZERO, SCALE)),
    "laplace": (LaplacePrior(SCALE), torch.distributions.Laplace(ZERO, SCALE / math.sqrt(2))),
    "student_t": (StudentTPrior(SCALE, 5.0), torch.distributions.StudentT(5 + ZERO, ZERO, SCALE)),
}
each_prior = pytest.mark.parametrize("spec, density", CASES.values(), ids=CASES)


@each_prior
def test_density_and_score_are_those_of_torch(spec, density):
    made = network().double()
    prior = spec.start(made, TASK, Run(0))
    expected = sum(density.log_prob(p).sum() for p in made.parameters())
    assert_close(prior.log_prob(made), expected)
    score = torch.autograd.grad(expected, tuple(made.parameters()))
    assert_close(torch.autograd.grad(-prior.energy(made), tuple(made.parameters())), score)


@each_prior
def test_the_term_is_the_energy_divided_by_the_rows(spec, density):
    made = network()
    prior = spec.start(made, TASK, Run(0))
    forward = Forward(made, BATCH)
    assert_close(prior(network_loss, forward), network_loss(forward) + prior.energy(made) / len(TASK.train))
    at_zero = copy.deepcopy(made)
    for parameter in at_zero.parameters():
        torch.nn.init.zeros_(parameter)
    assert float(prior.energy(at_zero).detach()) == 0


@each_prior
def test_draws_have_the_densitys_quantiles(spec, density):
    made = network()
    made.head = torch.nn.Linear(200, 200)
    torch.manual_seed(0)
    drawn = spec.start(made, TASK, Run(0)).draw(made)["head.weight"].flatten().double()
    reference = density.sample((drawn.numel(),)).double()
    shares = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    below = (drawn < reference.quantile(shares)[:, None]).double().mean(1)
    assert_close(below, shares, rtol=0, atol=5 * math.sqrt(0.5 / drawn.numel()))


def test_pushed_noise_has_the_priors_size_and_pull_is_its_transpose():
    made = network()
    prior = GaussianPrior(SCALE).start(made, TASK, Run(0))
    v, g = ({name: torch.randn_like(p) for name, p in made.named_parameters()} for _ in range(2))
    pushed = prior.push({**v, "elsewhere": torch.ones(2)})
    assert torch.equal(pushed.pop("elsewhere"), torch.ones(2))
    assert_close(pushed["head.weight"], SCALE * v["head.weight"])
    pulled = prior.pull(g)
    assert_close(sum((pushed[n] * g[n]).sum() for n in g), sum((v[n] * pulled[n]).sum() for n in g))


def test_vectors_of_members_have_no_prior():
    made = network(Scaled(2, 5), num_members=2)
    names = GaussianPrior().start(made, TASK, Run(0)).names
    assert set(names) == {"features.0.weight", "features.0.bias", "head.weight", "head.bias"}


def test_a_network_of_posteriors_alone_is_refused():
    made = MeanField()(MLP(hidden=(4,))(TASK.signature))
    with pytest.raises(CannotCompose, match="elbo"):
        GaussianPrior().start(made, TASK, Run(0))


def test_samplers_find_the_prior_in_the_objective():
    prior = GaussianPrior().start(network(), TASK, Run(0))
    objective = extend(network_loss, [prior])
    assert isinstance(objective, Extended)
    assert [term for term in objective.terms if isinstance(term, Prior)] == [prior]


@pytest.mark.parametrize("spec", [s for s in parts("objectives") if s.__name__.endswith("Prior")], ids=str)
def test_a_size_that_is_none_is_refused(spec):
    with pytest.raises(ValueError, match="scale must be positive"):
        spec(scale=0.0)
