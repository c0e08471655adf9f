"""Langevin steps against their formula, the noise they inject, and densities whose stationary moments are known."""

import dataclasses
import math

import pytest
import torch
from samplers.targets import N, banana, objective, pairs, run_through, setting
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, extend, network_loss
from levelhead.objectives.gaussian_prior import GaussianPrior
from levelhead.recipe import Recipe
from levelhead.samplers._langevin import due
from levelhead.samplers.hmc import HMC
from levelhead.samplers.sghmc import SGHMC
from levelhead.samplers.sgld import SGLD
from levelhead.surgeries.self_tuning import SelfTuning
from levelhead.tasks.stripes import stripes
from levelhead.training import Run

TASK = stripes(n=24, size=8)
LOSSLESS = {"batch_size": N, "prior_scale": None, "burn_in": 0.0}


def path(sampler, *terms, seed: int = 0, steps: int = 3):
    """The network before, its state after some steps on one batch, and that batch."""
    torch.manual_seed(seed)
    network = MLP(hidden=(5,))(TASK.signature).train()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    state = sampler.init(network, TASK, Run(0))
    batch = next(TASK.train.ordered(12))
    torch.manual_seed(7)
    for _ in range(steps):
        sampler.step(state, extend(network_loss, [term.start(network, TASK, Run(0)) for term in terms]), batch)
    return before, network, batch


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_steps_are_those_of_the_formula(momentum, temperature):
    sampler = SGHMC(lr=0.05, momentum=momentum, temperature=temperature, prior_scale=0.5)
    before, network, batch = path(sampler)
    reference = MLP(hidden=(5,))(TASK.signature)
    reference.load_state_dict({**reference.state_dict(), **before})
    velocity = {name: torch.zeros_like(p) for name, p in before.items()}
    n = len(TASK.train)
    torch.manual_seed(7)
    for _ in range(3):
        loss = network_loss(Forward(reference, batch))
        slopes = torch.autograd.grad(loss, list(reference.parameters()))
        with torch.no_grad():
            for (name, p), slope in zip(reference.named_parameters(), slopes, strict=True):
                gradient = slope + p / (n * 0.5**2)
                noise = math.sqrt(2 * (1 - momentum) * 0.05 * temperature / n) * torch.randn_like(p)
                velocity[name] = momentum * velocity[name] - 0.05 * gradient + noise
                p += velocity[name]
    for (name, p), q in zip(network.named_parameters(), reference.parameters(), strict=True):
        assert_close(p, q, msg=name)


def test_sghmc_without_momentum_is_sgld():
    settings = {"lr": 0.05, "batch_size": 12, "epochs": 4, "prior_scale": 0.5}
    one, other = (path(sampler)[1] for sampler in (SGLD(**settings), SGHMC(momentum=0.0, **settings)))
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_noise_injected(momentum):
    sampler = SGHMC(lr=0.01, momentum=momentum, temperature=0.5, epochs=1, **LOSSLESS)
    network, task, run = setting(20_000)
    before = network.head.bias.detach().clone()
    run_through(sampler, network, task, run, objective(lambda pair: 0 * pair.sum()))
    step = 0.01 * 0.5 / N  # the papers' step on the summed log joint, times T
    measured = (network.head.bias - before).var()
    assert_close(measured, torch.tensor(2 * (1 - momentum) * step), rtol=0.03, atol=0)


def test_a_prior_among_the_objectives_takes_the_place_of_the_samplers():
    settings = {"lr": 0.05, "temperature": 0.0}
    _, spoken, _ = path(SGLD(prior_scale=9.0, **settings), GaussianPrior(0.5))
    _, own, _ = path(SGLD(prior_scale=0.5, **settings))
    _, none, _ = path(SGLD(prior_scale=None, **settings))
    assert_close(spoken.head.weight, own.head.weight)
    assert not torch.allclose(own.head.weight, none.head.weight)


def test_temperature_zero_draws_nothing():
    torch.manual_seed(0)
    settings = {"lr": 0.05, "temperature": 0.0, "prior_scale": None}
    (_, one, _), (_, other, _) = path(SGLD(**settings)), path(SGLD(**settings))
    assert_close(one.head.weight, other.head.weight, rtol=0, atol=0)
    stream = torch.random.get_rng_state()
    torch.manual_seed(7)
    assert torch.equal(stream, torch.random.get_rng_state())


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize(
    "spec", [SGLD(lr=2.0, epochs=100), SGHMC(lr=2.0, momentum=0.5, epochs=100)], ids=["sgld", "sghmc"]
)
def test_a_gaussian_has_the_variance_of_its_discretisation(spec, temperature):
    """U = |w|^2, curvature k = 2, step eta = lr / N: w' = (1 - eta k) w + (2 eta T)^(1/2) xi."""
    sampler = dataclasses.replace(spec, temperature=temperature, **LOSSLESS)
    network, task, run = setting(10_000)
    run_through(sampler, network, task, run, objective(lambda pair: pair.square().sum()))
    k, eta, beta = 2.0, 2.0 / N, sampler.momentum
    # the stationary covariance of (w, m) solves S = A S A' + Q
    a = torch.tensor([[1 - eta * k, beta], [-eta * k, beta]], dtype=torch.float64)
    q = 2 * (1 - beta) * eta * temperature * torch.ones(2, 2, dtype=torch.float64)
    s = torch.linalg.solve(torch.eye(4) - torch.kron(a, a), q.flatten()).reshape(2, 2)
    assert float(s[0, 0]) == pytest.approx(temperature / 2, rel=0.12)  # near the posterior's
    assert_close(network.head.bias.var().double(), s[0, 0], rtol=0.05, atol=0)


@pytest.mark.parametrize(
    "sampler",
    [SGLD(lr=1.0, epochs=300), SGHMC(lr=0.1, momentum=0.9, epochs=300)],
    ids=["sgld", "sghmc"],
)
def test_a_banana(sampler):
    network, task, run = setting(4000)
    torch.nn.init.zeros_(network.head.bias)
    run_through(dataclasses.replace(sampler, **LOSSLESS), network, task, run, objective(banana))
    x, y = pairs(network.head.bias.detach()).unbind(-1)
    for measured, expected, spread in ((x, 0.0, 1.0), (y, 0.5, 1.23), (x.square(), 1.0, 1.42)):
        error = spread / math.sqrt(4000)
        assert float(measured.mean()) == pytest.approx(expected, abs=4 * error + 0.05)  # 0.05: the steps' own bias


def test_minibatch_gradients_are_unbiased():
    network = MLP(hidden=(5,))(TASK.signature)
    parameters = list(network.parameters())

    def slope(batch):
        return torch.autograd.grad(network_loss(Forward(network, batch)), parameters)

    shares = [slope(batch) for batch in TASK.train.batches(6, torch.Generator().manual_seed(1))]
    assert len(shares) == 4
    for one, whole in zip(map(sum, zip(*shares, strict=True)), slope(next(TASK.train.ordered(24))), strict=True):
        assert_close(one / 4, whole)


def test_rmsprop_scales_steps_and_noise():
    sampler = SGLD(lr=0.01, preconditioner="rmsprop", epochs=1, **LOSSLESS)
    network, task, run = setting(20_000)
    before = network.head.bias.detach().clone()
    run_through(sampler, network, task, run, objective(lambda pair: 3.0 * N * pair.sum()))
    metric = math.sqrt(0.99 + 0.01 * 9.0)
    moved = network.head.bias - before
    assert_close(moved.mean(), torch.tensor(-0.01 * 3.0 / metric), rtol=0, atol=5 * math.sqrt(0.001 / 40_000))
    assert_close(moved.var(), torch.tensor(2 * 0.01 / (N * metric)), rtol=0.03, atol=0)


@pytest.mark.parametrize("count, expected", [(1, [20]), (3, [14, 17, 20]), (10, list(range(11, 21)))])
def test_draws_are_spread_over_the_steps_after_the_burn_in(count, expected):
    assert [done for done in range(1, 21) if due(done, 10, 20, count)] == expected


def test_a_fit_keeps_its_draws():
    sampler = SGLD(epochs=5, batch_size=8, burn_in=0.4, num_draws=5)
    predictor = Recipe(backbone=MLP(hidden=(4,)), sampler=sampler).fit(TASK, 0)
    assert predictor.num_draws == 5
    assert len(predictor.draws["head.bias"].unique(dim=0)) == 5
    assert set(predictor.diagnostics) == {"rhat", "rhat_median", "ess", "ess_median"}


@pytest.mark.parametrize(
    "wrong",
    [{"prior_scale": -1.0}, {"temperature": -1.0}, {"burn_in": 1.0}, {"num_draws": 0}, {"momentum": 1.0}, {"lr": 0.0}],
    ids=str,
)
def test_settings_that_sample_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=f"SGHMC: {next(iter(wrong))} must"):
        SGHMC(**wrong)


@pytest.mark.parametrize("sampler", [SGLD(epochs=1, lr=0.1), HMC(epochs=4)], ids=["sgld", "hmc"])
def test_distributions_of_hyper_parameters_wait_for_who_tunes_them(sampler):
    network = SelfTuning()(MLP(hidden=(5, 5))(TASK.signature)).train()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    state = sampler.init(network, TASK, Run(0))
    for _ in range(4):
        sampler.step(state, network_loss, next(TASK.train.ordered(24)))
    sampler.predictor(state)
    resting = {name for name, p in network.named_parameters() if torch.equal(p, before[name])}
    assert {name for name in before if name.startswith("hyper.")} == resting
