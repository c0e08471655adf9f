"""Moments against plain averages of the path, draws against the formula's covariance."""

import math

import pytest
import torch
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.backbones.resnet import ResNet
from levelhead.forward import network_loss
from levelhead.predictor import WeightSamples
from levelhead.recipe import Recipe
from levelhead.samplers.ema import EMA
from levelhead.samplers.sgd import SGD
from levelhead.samplers.swag import SWAG, SWAGState
from levelhead.tasks.stripes import stripes
from levelhead.training import Run
from levelhead.types import CannotCompose

TASK = stripes(n=60)
INNER = SGD(epochs=8, batch_size=16, lr=0.05, schedule="constant")


def walked(spec: SWAG) -> tuple[SWAGState, list[torch.Tensor]]:
    """A state after all its steps, and the head's weights at the end of each epoch."""
    network = MLP()(TASK.signature)
    state, path = spec.init(network, TASK, Run(0)), []
    for epoch in range(spec.epochs):
        for batch in TASK.train.batches(16, torch.Generator().manual_seed(epoch)):
            spec.step(state, network_loss, batch)
        path.append(network.head.weight.detach().clone())
    return state, path


def test_moments_are_those_of_the_late_epochs() -> None:
    state, path = walked(SWAG(inner=INNER, collect=0.5))
    late = torch.stack(path[3:])  # ends of epochs 4 to 8: from half the steps on
    assert state.collected == 5
    assert_close(state.mean["head.weight"], late.mean(0))
    assert_close(state.square["head.weight"], late.square().mean(0))
    expected = [late[k] - late[: k + 1].mean(0) for k in range(5)]
    assert_close(torch.stack([d["head.weight"] for d in state.deviations]), torch.stack(expected))


def test_only_the_last_deviations_are_kept() -> None:
    state, _ = walked(SWAG(inner=INNER, collect=1.0, rank=3))
    assert state.collected == 8
    assert len(state.deviations) == 3


@pytest.mark.parametrize("rank", [0, 20])
def test_draws_have_the_mean_and_covariance_of_the_formula(rank: int) -> None:
    state, _ = walked(SWAG(inner=INNER, collect=1.0, rank=rank))
    draws = torch.stack([state.draw()["head.bias"] for _ in range(3_000)])
    mean = state.mean["head.bias"]
    covariance = torch.diag((state.square["head.bias"] - mean.square()).clamp_min(0))
    if rank:
        d = torch.stack([deviation["head.bias"] for deviation in state.deviations])
        covariance = covariance / 2 + d.T @ d / (2 * (len(d) - 1))
    error = covariance.diagonal().sqrt() / math.sqrt(len(draws))
    assert ((draws.mean(0) - mean).abs() < 5 * error).all()
    assert_close(torch.cov(draws.T), covariance, atol=0.15 * float(covariance.abs().max()), rtol=0)


def test_no_draws_is_stochastic_weight_averaging() -> None:
    spec = SWAG(inner=INNER, num_draws=0)
    state, path = walked(spec)
    predictor = spec.predictor(state)
    assert isinstance(predictor, WeightSamples)
    assert_close(predictor.draws["head.weight"][0], torch.stack(path[3:]).mean(0))


def test_statistics_belong_to_the_drawn_weights() -> None:
    spec = SWAG(inner=SGD(epochs=2, batch_size=60, lr=0.05), num_draws=1)
    network = ResNet(depth=8, width=4)(TASK.signature)
    state = spec.init(network, TASK, Run(0))
    for epoch in range(2):
        for batch in TASK.train.batches(60, torch.Generator().manual_seed(epoch)):
            spec.step(state, network_loss, batch)
    before = {name: b.clone() for name, b in network.named_buffers()}
    drawn = state.draw()
    name = next(name for name in drawn if name.endswith("running_mean"))
    probe = network.copy()
    probe.load_state_dict({**probe.state_dict(), **{k: v for k, v in drawn.items() if "running" not in k}})
    norm = probe.get_submodule(name.rpartition(".")[0])
    norm.momentum = 1.0  # the statistics of the one full batch
    probe.train()(next(TASK.train.ordered(60)).x)
    assert_close(drawn[name], norm.running_mean)
    assert all(torch.equal(b, before[key]) for key, b in network.named_buffers())


def test_it_refuses_inners_it_would_ignore() -> None:
    with pytest.raises(CannotCompose, match=r"SWAG\(inner=SGD\(\)\)"):
        Recipe(backbone=MLP(), sampler=SWAG(inner=EMA())).fit(TASK, 0)
    with pytest.raises(ValueError, match="rank must be 0"):
        SWAG(rank=1)
    with pytest.raises(ValueError, match="collect must be in"):
        SWAG(collect=0.0)
