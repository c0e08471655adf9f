"""HMC against densities that are known, and its bookkeeping: rejections, divergences, lengths, dead inputs."""

import dataclasses
import math

import pytest
import torch
from samplers.targets import COVARIANCE, MEAN, banana, gaussian, objective, pairs, run_through, setting
from scipy import stats
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.forward import Forward, network_loss
from levelhead.metrics.chains import ess, rhat
from levelhead.recipe import Recipe
from levelhead.samplers.hmc import HMC
from levelhead.samplers.sgd import SGD
from levelhead.storage import load, save
from levelhead.surgeries.mc_dropout import MCDropout
from levelhead.surgeries.spectral_norm import SpectralNorm
from levelhead.tasks.augment import Augment
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task
from levelhead.types import CannotCompose

FLAT = HMC(chains=2, prior_scale=None, step_size=0.2, num_draws=10_000, burn_in=0.1)
TASK = stripes(n=24, size=8)


def drawn(sampler: HMC, energy, copies: int):
    """The state, and the copies in the draws: (chain, draw, copy, 2)."""
    state = run_through(sampler, *setting(copies), objective(energy))
    bias = sampler.predictor(state).draws["head.bias"]
    return state, pairs(bias.unflatten(0, (sampler.chains, -1)))


def test_it_draws_from_a_gaussian():
    sampler = dataclasses.replace(FLAT, epochs=1200, trajectory=2.0)
    state, draws = drawn(sampler, gaussian, copies=8)
    assert rhat(draws.mean(2)).max() < 1.01
    assert rhat(draws.square().mean(2)).max() < 1.01
    flat = draws.reshape(-1, 2)
    error = (COVARIANCE.diagonal() / len(flat)).sqrt()
    assert ((flat.mean(0) - MEAN).abs() < 5 * error).all()
    assert_close(torch.cov(flat.T), COVARIANCE, rtol=0.08, atol=0)
    diagnostics = state.diagnostics(sampler.predictor(state))
    assert 0.7 < diagnostics["acceptance"] < 0.97
    assert diagnostics["rhat_energy"] < 1.01


def test_it_draws_from_a_banana():
    sampler = dataclasses.replace(FLAT, epochs=3000, trajectory=2.0)
    _, draws = drawn(sampler, banana, copies=16)
    x, y = draws.double().unbind(-1)
    # of every draw the mean over its independent copies
    told = torch.stack([x.mean(-1), y.mean(-1), x.square().mean(-1), (x.square() * y).mean(-1)], -1)
    assert rhat(told).max() < 1.01
    expected = torch.tensor([0.0, 0.5, 1.0, 1.5])
    error = told.std((0, 1)) / ess(told).sqrt()
    assert ((told.mean((0, 1)) - expected).abs() < 4 * error).all()
    assert_close(y.var(), torch.tensor(1.5, dtype=torch.float64), rtol=0.15, atol=0)


def test_temperature_widens_the_posterior_and_the_prior_narrows_it():
    sampler = dataclasses.replace(FLAT, epochs=300, temperature=4.0, prior_scale=1.0, trajectory=math.pi / 2)
    _, draws = drawn(sampler, lambda pair: 1.5 * pair.square().sum(), copies=60)
    assert_close(draws.var(), torch.tensor(4.0 / (3.0 + 1.0)), rtol=0.1, atol=0)


def test_a_rejected_state_counts_again():
    sampler = HMC(
        epochs=300, chains=1, prior_scale=None, step_size=0.95, target_acceptance=None, trajectory=2.85, burn_in=0.0
    )
    sampler = dataclasses.replace(sampler, num_draws=10_000, jitter=0.0)
    state, draws = drawn(sampler, gaussian, copies=3)
    assert draws.shape[1] == len(state.energies) == 300 // 3
    moved = (draws[0, 1:] != draws[0, :-1]).flatten(1).any(1).sum()
    accepted = float(state.accepted[0])
    assert 10 < accepted < 90
    assert accepted - 1 <= float(moved) <= accepted  # the first one started elsewhere


def test_an_energy_that_is_no_number_is_rejected_and_counted():
    def half(pair):
        return torch.where((pair > 0).any(), torch.nan, 0.5 * pair.square().sum())

    sampler = dataclasses.replace(FLAT, epochs=200, trajectory=1.0, target_acceptance=None)
    network, task, run = setting(1)
    torch.nn.init.constant_(network.head.bias, -1.0)
    state = run_through(sampler, network, task, run, objective(half))
    draws = sampler.predictor(state).draws["head.bias"]
    assert bool((draws <= 0).all())
    assert state.divergences > 0
    assert len(draws.unique(dim=0)) > 10


def test_trajectories_grow_in_the_burn_in_and_jitter_after_it():
    sampler = dataclasses.replace(FLAT, epochs=600, burn_in=0.5, trajectory=4.0, target_acceptance=None, chains=1)
    network, task, run = setting(1)
    state = sampler.init(network, task, run)
    batch = next(task.train.ordered(20))
    lengths, before = [], []
    for _ in range(600):
        if state.place == 0 and state.length:
            (lengths if state.done >= 300 else before).append(state.length)
        sampler.step(state, objective(gaussian), batch)
    assert before[:6] == [1, 2, 2, 2, 3, 3]
    assert max(before) <= 24
    assert set(lengths[:-1]) <= set(range(16, 25))  # 20 leapfrogs of 0.2, a fifth more or less
    assert len(set(lengths)) > 4


def test_a_run_goes_on_in_mid_trajectory_to_the_bit(tmp_path):
    sampler = HMC(epochs=80, chains=2, step_size=0.1, burn_in=0.3, num_draws=50)
    batch = next(TASK.train.ordered(24))

    def started():
        torch.manual_seed(3)
        network = MLP(hidden=(4,))(TASK.signature)
        return sampler.init(network, TASK, setting(1)[2])

    def go_on(state, until: int):
        while state.done < until:
            sampler.step(state, network_loss, batch)
        return sampler.predictor(state)

    whole = go_on(started(), 80)
    half = started()
    go_on(half, 53)
    assert 0 < half.place < half.length
    torch.save({"state": half.state_dict(), "noise": torch.get_rng_state()}, tmp_path / "state.pt")
    stored = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = started()
    resumed.load_state_dict(stored["state"])
    torch.set_rng_state(stored["noise"])
    again = go_on(resumed, 80)
    assert all(torch.equal(draws, whole.draws[name]) for name, draws in again.draws.items())
    assert again.diagnostics == whole.diagnostics
    assert again.num_draws > 2


def dead_task() -> Task:
    """Two classes by the first of three features; the last one never varies in training."""
    generator = torch.Generator().manual_seed(0)

    def split(name: str) -> Split:
        x = torch.randn(40, 3, generator=generator)
        x[:, 2] = 0.5
        return Split(name, x, (x[:, 0] > 0).long())

    return Task(
        name="dead",
        train=split("train"),
        val=split("val"),
        calibration=split("calibration"),
        test=split("test"),
        likelihood=setting(1)[0].likelihood,
    )


def test_weights_of_a_dead_input_keep_their_prior():
    task = dead_task()
    sampler = HMC(epochs=500, chains=1, prior_scale=0.6, burn_in=0.2, num_draws=400, step_size=0.1)
    backbone = MLP(hidden=(24,), activation="tanh")
    network = backbone(task.signature)
    loss = network_loss(Forward(network, next(task.train.ordered(40))))
    slope = torch.autograd.grad(loss, network.features.hidden1.linear.weight)[0]
    assert float(slope[:, 2].abs().max()) == 0.0
    assert float(slope[:, 0].abs().min()) > 0
    predictor = Recipe(backbone=backbone, sampler=sampler).fit(task, 0)
    weights = predictor.draws["features.hidden1.linear.weight"]
    dead, seen = weights[:, :, 2].flatten(), weights[:, :, 0].abs().mean(0)
    assert stats.kstest(dead.numpy(), stats.norm(scale=0.6).cdf).pvalue > 0.01
    assert stats.kstest(weights[:, :, 0].flatten().numpy(), stats.norm(scale=0.6).cdf).pvalue < 0.01
    assert float(seen.mean()) > 0.6 * math.sqrt(2 / math.pi)
    point = Recipe(backbone=backbone, sampler=SGD(epochs=100, lr=0.3, weight_decay=1 / (40 * 0.36))).fit(task, 0)
    assert float(point.network.features.hidden1.linear.weight.detach()[:, 2].abs().max()) < 0.02


def test_draws_are_stored_with_their_chains_and_diagnostics(tmp_path):
    sampler = HMC(epochs=60, chains=2, step_size=0.1, trajectory=0.5, burn_in=0.1)
    predictor = Recipe(backbone=MLP(hidden=(4,)), sampler=sampler).fit(TASK, 0)
    again = load(save(predictor, tmp_path / "predictor"))
    assert again.num_chains == 2
    assert again.diagnostics == predictor.diagnostics
    assert {"acceptance", "rhat", "ess", "rhat_energy", "divergences", "leapfrogs"} <= set(again.diagnostics)
    thin = again.thinned(4)
    per_chain = predictor.num_draws // 2
    ends = [per_chain // 2 - 1, per_chain - 1, per_chain + per_chain // 2 - 1, 2 * per_chain - 1]
    assert_close(thin.draws["head.bias"], predictor.draws["head.bias"][ends])
    with pytest.raises(ValueError, match="multiple of 2"):
        again.thinned(3)


@pytest.mark.parametrize(
    "backbone, surgery, advice",
    [
        (ResNet(depth=8, width=4), (), "norm='group'"),
        (MLP(hidden=(8, 8)), (MCDropout(),), "dropout"),
        (MLP(hidden=(8, 8)), (SpectralNorm(),), "leave out what keeps such statistics"),
    ],
)
def test_networks_that_are_no_functions_are_refused_with_advice(backbone, surgery, advice):
    with pytest.raises(CannotCompose, match=advice):
        Recipe(backbone=backbone, surgery=surgery, sampler=HMC(epochs=2)).fit(TASK, 0)


def test_frozen_statistics_are_accepted_and_augmentation_is_not():
    network = ResNet(depth=8, width=4)(TASK.signature)
    for module in list(network.modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            network.freeze(module)
    _, _, run = setting(1)
    assert HMC().init(network.train(), TASK, run).network is network
    augmented = dataclasses.replace(TASK, augment=Augment(crop=1))
    with pytest.raises(CannotCompose, match="augment=None"):
        HMC().init(network, augmented, run)
    network.requires_grad_(False)
    with pytest.raises(CannotCompose, match="nothing to sample"):
        HMC().init(network, TASK, run)


@pytest.mark.parametrize(
    "wrong", [{"prior_scale": 0.0}, {"chains": 0}, {"jitter": 1.0}, {"target_acceptance": 1.0}, {"temperature": 0.0}]
)
def test_settings_that_sample_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=f"HMC: {next(iter(wrong))} must be"):
        HMC(**wrong)
