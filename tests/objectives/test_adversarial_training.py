"""The attack inside training: never outside its box, exact for a linear model, without side effects."""

from typing import Any

import pytest
import torch
from networks import Scaled
from torch import nn
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.forward import Forward, network_loss
from levelhead.likelihood import Gaussian
from levelhead.network import Network
from levelhead.objectives.adversarial_training import AdversarialTraining, input_range, spread
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


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("mode", ["side", "train", "eval"])
def test_a_share_of_a_mixed_batch_is_moved_and_the_rest_stays(share: float, mode: Any) -> None:
    task = stripes(n=48)
    network = MLP(batch_norm=True)(task.signature).train()
    batch = next(task.train.ordered(20))
    spec = AdversarialTraining(eps=0.1, steps=2, random_start=True, clamp=True, replaced=share, attack_mode=mode)
    term = spec.start(network, task, Run(0))
    x = term.mixed(Forward(network, batch), share)
    changed = (x != batch.x).flatten(1).any(1)
    assert int(changed.sum()) == int(20 * share)
    assert ((x - batch.x).abs() <= 0.1 + 1e-6).all()
    seen = []
    term(lambda forward: seen.append(forward.batch.x) or network_loss(forward), Forward(network, batch))
    assert len(seen) == 1, "one loss of the mixed batch"


def test_at_rest_rows_attacked_alone_are_those_attacked_among_all() -> None:
    task = stripes(n=48)
    network = MLP(batch_norm=True)(task.signature).train()
    batch = next(task.train.ordered(20))
    spec = AdversarialTraining(eps=0.1, steps=3, replaced=0.5, attack_mode="eval")
    term = spec.start(network, task, Run(0))
    all_moved, mixed = term.attacked(Forward(network, batch)), term.mixed(Forward(network, batch), 0.5)
    chosen = spread(20, 0.5)
    assert_close(mixed[chosen], all_moved[chosen])
    own = batch._replace(x=batch.x.repeat(2, 1, 1, 1), y=batch.y.expand(2, -1), per_member=True)
    width = batch.x[0].numel()
    stages = nn.Sequential(nn.Flatten(), Scaled(2, width))
    members = Network(stages, nn.Linear(width, 3), task.signature, width=width).declare(num_members=2)
    moved = term.mixed(Forward(members, own), 0.5)
    assert [int((moved != own.x).flatten(1).any(1)[rows].sum()) for rows in (slice(20), slice(20, 40))] == [10, 10]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 1.0])
def test_the_chosen_rows_are_spread(share: float) -> None:
    for n in (1, 7, 10, 128):
        chosen = spread(n, share)
        assert len(chosen) == int(n * share + 1e-9)
        assert len(chosen) < 2 or int(chosen.diff().max()) <= 1 / share + 1
        assert chosen.unique().equal(chosen)


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        AdversarialTraining(steps=0)
    with pytest.raises(ValueError, match=r"replaced wants a share in \(0, 1\], or None, got 1.5"):
        AdversarialTraining(replaced=1.5)
    with pytest.raises(ValueError, match=r"clean_weight=0.5 would have no effect"):
        AdversarialTraining(replaced=0.5, clean_weight=0.5)
