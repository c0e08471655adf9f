"""The evidence lower bound against closed forms: Bayesian linear regression has a known mean-field optimum."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, network_loss
from levelhead.layers.gaussian_weights import GaussianWeights, softplus_inverse
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.objectives.elbo import ELBO, divergence
from levelhead.passes import still
from levelhead.samplers.adamw import AdamW
from levelhead.surgeries.mean_field import MeanField
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task
from levelhead.training import Run, train
from levelhead.types import Batch, CannotCompose

NOISE, PRIOR = 0.5, 0.7


@dataclass(frozen=True)
class Noisy:
    """y = output + N(0, NOISE^2): a likelihood under which linear regression is Gaussian."""

    void: None = None
    num_outputs: int = 1

    def loss(self, outputs, y):
        return (0.5 * ((y - outputs) / NOISE).square()).sum(-1).mean()


def regression() -> tuple[Task, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator) @ torch.tensor([[1.0, 0.6, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]])
    y = x @ torch.tensor([[1.0], [-0.5], [0.2]]) + NOISE * torch.randn(40, 1, generator=generator)
    pieces = {name: Split(name, x + k, y) for k, name in enumerate(("val", "calibration", "test"), start=1)}
    task = Task(name="line", likelihood=Noisy(), train=Split("train", x, y), **pieces)
    return task, x, y


def optimum(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Means and standard deviations: the exact posterior's mean, and 1 / diag(precision)."""
    precision = x.T @ x / NOISE**2 + torch.eye(x.shape[1]) / PRIOR**2
    return torch.linalg.solve(precision, x.T @ y / NOISE**2)[:, 0], precision.diagonal().rsqrt()


def linear(estimator: str) -> Network:
    torch.manual_seed(0)
    signature = Signature((3,), 1, Noisy())
    plain = Network(nn.Identity(), nn.Linear(3, 1, bias=False), signature, width=3)
    return MeanField(estimator=estimator, within="head")(plain)


@pytest.mark.parametrize("estimator", ["flipout", "local", "shared"])
def test_linear_regression_finds_the_mean_field_optimum(estimator):
    task, x, y = regression()
    mean, std = optimum(x, y)
    network = linear(estimator)
    sampler = AdamW(epochs=1200, batch_size=40, lr=0.03, weight_decay=0.0)
    train(network, task, (ELBO(prior_scale=PRIOR),), sampler, Run(0))
    layer = network.head
    # the last steps are small, so that what is left of the draws' noise is too
    assert_close(layer.weight.detach()[0], mean, atol=0.02, rtol=0)
    assert_close(layer.weight_std.detach()[0], std, rtol=0.15, atol=0)


@pytest.mark.parametrize("estimator", ["flipout", "local", "shared"])
def test_the_gradient_vanishes_at_the_optimum_on_average(estimator):
    task, x, y = regression()
    mean, std = optimum(x, y)
    network = linear(estimator).train()
    with torch.no_grad():
        network.head.weight.copy_(mean[None])
        network.head.weight_rho.copy_(torch.tensor([[softplus_inverse(float(s)) for s in std]]))
    term = ELBO(prior_scale=PRIOR).start(network, task, Run(0))
    batch = Batch(x, y, torch.arange(40))
    gradients = []
    for _ in range(800):
        network.zero_grad()
        term(network_loss, Forward(network, batch)).backward()
        gradients.append(torch.cat([network.head.weight.grad, network.head.weight_rho.grad], 1)[0].clone())
    drawn = torch.stack(gradients)
    assert (drawn.mean(0).abs() < 4.5 * drawn.std(0) / 800**0.5).all()


def made() -> tuple[Network, Task]:
    torch.manual_seed(0)
    task = stripes(n=24, size=8)
    return MeanField()(MLP(hidden=(6,))(task.signature)).train(), task


def step(network: Network, task: Task) -> Forward:
    return Forward(network, next(task.train.ordered(8)))


def test_the_bound_is_the_loss_and_the_kl_by_the_number_of_training_rows():
    network, task = made()
    layers = network.layers(GaussianWeights)
    kl = sum(
        kl_divergence(Normal(mean, std), Normal(0.0, 0.4)).sum()
        for layer in layers
        for mean, std in ((layer.weight, layer.weight_std), (layer.bias, layer.bias_std))
    )
    assert_close(divergence(network, 0.4), kl)
    for temperature in (0.0, 0.3, 1.0):
        term = ELBO(prior_scale=0.4, temperature=temperature).start(network, task, Run(0))
        forward = step(network, task)
        assert_close(term(network_loss, forward), network_loss(forward) + temperature * kl / len(task.train))


def test_the_prior_comes_in_slowly():
    network, task = made()
    with still(network):
        term = ELBO(anneal_epochs=4).start(network, task, Run(0))
        values = []
        for _ in range(6):
            values.append(float(term(network_loss, step(network, task)) - network_loss(step(network, task))))
            term.end_epoch(network)
    full = float(divergence(network, None).detach()) / len(task.train)
    assert values == pytest.approx([0, full / 4, full / 2, 3 * full / 4, full, full], rel=1e-4, abs=1e-6)


def test_no_posterior_no_bound():
    task = stripes(n=24, size=8)
    network = MLP(hidden=(6,))(Signature((1, 8, 8), 3, Categorical(3)))
    with pytest.raises(CannotCompose, match="mean_field"):
        ELBO().start(network, task, Run(0))


def test_wrong_settings_name_the_field():
    for field, value in (("prior_scale", 0.0), ("temperature", -1.0), ("anneal_epochs", -1)):
        with pytest.raises(ValueError, match=field):
            ELBO(**{field: value})
