"""The attack inside training: never outside its box, exact for a linear model, without side effects."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, network_loss
from levelhead.likelihood import Gaussian
from levelhead.network import Network
from levelhead.objectives.adversarial_training import AdversarialTraining, input_range
from levelhead.tasks.split import Split
from levelhead.tasks.stripes import stripes
from levelhead.tasks.task import Task
from levelhead.training import Run


def table(features: int = 3, n: int = 20) -> Task:
    """Regression on features of ranges 1, 10 and 0."""

    def split(name: str) -> Split:
        x = torch.rand(n, features) * torch.tensor([1.0, 10.0, 0.0])
        x[:2, 0], x[:2, 1] = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 10.0])
        return Split(name, x, torch.randn(n, 1))

    return Task("table", split("train"), split("val"), split("calibration"), split("test"), Gaussian())


def linear(task: Task) -> Network:
    return Network(nn.Identity(), nn.Linear(3, 2), task.signature, width=3)


def test_steps_are_eps_of_each_features_range() -> None:
    task = table()
    network = linear(task)
    term = AdversarialTraining(eps=0.05).start(network, task, Run(0))
    batch = next(task.train.ordered(20))
    moved = term.attacked(Forward(network, batch)) - batch.x
    assert_close(moved.abs(), torch.tensor([0.05, 0.5, 0.0]).expand(20, 3), atol=1e-6, rtol=1e-5)
    assert not moved.requires_grad


def test_fgsm_on_a_linear_gaussian_model_has_its_closed_form() -> None:
    task = table()
    network = linear(task)
    nn.init.zeros_(network.head.weight[1:])  # constant variance
    batch = next(task.train.ordered(20))
    eps = 0.02
    term = AdversarialTraining(eps=eps).start(network, task, Run(0))
    forward = Forward(network, batch)
    mean, variance = Gaussian().moments(network(batch.x))
    low, high = input_range(task)
    reach = (eps * (high - low) * network.head.weight[0].abs()).sum()
    expected = 0.5 * ((batch.y - mean[0]).abs() + reach) ** 2 / variance + 0.5 * (variance.log() + 1.8378770664)
    assert_close(network_loss(forward.on(x=term.attacked(forward))), expected.mean(), atol=1e-5, rtol=1e-5)


def test_no_radius_gives_twice_the_clean_loss() -> None:
    task = table()
    network = linear(task)
    forward = Forward(network, next(task.train.ordered(20)))
    term = AdversarialTraining(eps=0.0).start(network, task, Run(0))
    assert_close(term(network_loss, forward), 2 * network_loss(forward))


@pytest.mark.parametrize("random_start", [False, True])
def test_many_steps_stay_in_the_box_and_in_the_range(random_start: bool) -> None:
    task = stripes(n=48)
    network = MLP()(task.signature)
    spec = AdversarialTraining(eps=0.1, steps=5, random_start=random_start, clamp=True)
    term = spec.start(network, task, Run(0))
    batch = next(task.train.ordered(48))
    moved = term.attacked(Forward(network, batch))
    low, high = input_range(task)
    assert ((moved - batch.x).abs() <= 0.1 * (high - low) + 1e-6).all()
    assert (moved >= low).all()
    assert (moved <= high).all()
    clean, hurt = (network_loss(Forward(network, batch._replace(x=x))) for x in (batch.x, moved))
    assert hurt > clean


def test_random_signs_are_the_control() -> None:
    task = stripes(n=48)
    network = MLP()(task.signature)
    batch = next(task.train.ordered(48))
    gains = {}
    for direction in ("gradient", "random"):
        term = AdversarialTraining(eps=0.05, direction=direction).start(network, task, Run(0))
        moved = term.attacked(Forward(network, batch))
        clean, hurt = (network_loss(Forward(network, batch._replace(x=x))) for x in (batch.x, moved))
        gains[direction] = (hurt - clean).item()
    assert gains["gradient"] > 2 * abs(gains["random"]), gains


def test_the_attack_touches_neither_gradients_nor_statistics() -> None:
    task = stripes(n=48)
    network = MLP(batch_norm=True)(task.signature).train()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    term = AdversarialTraining().start(network, task, Run(0))
    term.attacked(Forward(network, next(task.train.ordered(48))))
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_madrys_form_trains_on_moved_inputs_only() -> None:
    task = stripes(n=48)
    network = MLP()(task.signature)
    forward = Forward(network, next(task.train.ordered(48)))
    term = AdversarialTraining(eps=0.1, clean_weight=0.0).start(network, task, Run(0))
    assert_close(term(network_loss, forward), network_loss(forward.on(x=term.attacked(forward))))


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        AdversarialTraining(steps=0)
