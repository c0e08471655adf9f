"""Signed steps: the box, the bounds, a linear model's closed form, and what the three modes may touch."""

from typing import Any

import pytest
import torch
from networks import Noisy
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.adversarial.steps import climb, outputs_at, uphill
from levelhead.forward import Forward
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.types import Batch

SIGNATURE = Signature((4,), 2, Categorical(2))


def linear() -> Network:
    network = Network(nn.Identity(), nn.Linear(4, 2, bias=False), SIGNATURE, width=4)
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor([[1.0, -2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    return network


def noisy() -> Network:
    stages = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), Noisy())
    return Network(stages, nn.Linear(6, 2), SIGNATURE, width=6).train()


def forward_of(network: Network, n: int = 6) -> Forward:
    return Forward(network, Batch(torch.rand(n, 4), torch.zeros(n, dtype=torch.long), torch.arange(n)))


def kept(network: Network) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in network.state_dict().items()}


@pytest.mark.parametrize("mode", ["side", "train", "eval"])
def test_one_step_on_a_linear_model_is_its_sign_pattern(mode: Any) -> None:
    forward = forward_of(linear())
    x = 0.25 + 0.5 * forward.batch.x
    push = uphill(forward, mode)
    for y, sign in ((0, -1.0), (1, 1.0)):
        push = uphill(forward.on(y=torch.full((6,), y)), mode)
        moved = climb(x, push, eps=0.1, size=0.05, steps=1)
        assert_close(moved - x, (sign * 0.05 * torch.tensor([1.0, -1.0, 1.0, 0.0])).expand(6, 4), atol=1e-7, rtol=0)
        far = climb(x, push, eps=0.1, size=0.05, steps=7)
        assert_close(far - x, (sign * 0.1 * torch.tensor([1.0, -1.0, 1.0, 0.0])).expand(6, 4), atol=1e-7, rtol=0)


def test_no_step_leaves_the_start_and_no_box_leaves_the_inputs() -> None:
    forward = forward_of(linear())
    x, push = forward.batch.x, uphill(forward, "side")
    start = torch.clamp(x + 0.1 * (2 * torch.rand_like(x) - 1), 0, 1)
    assert_close(climb(x, push, eps=0.1, size=0.0, steps=3, start=start, bounds=(0, 1)), start, atol=1e-7, rtol=0)
    assert torch.equal(climb(x, push, eps=0.0, size=0.3, steps=3, bounds=(0, 1)), x)


def test_moved_inputs_stay_in_the_box_and_in_the_bounds_also_of_each_channel() -> None:
    x = torch.rand(5, 2, 3, 3)
    eps = torch.tensor([0.1, 0.5]).reshape(2, 1, 1)
    bounds = (torch.zeros(2, 1, 1), torch.tensor([1.0, 0.8]).reshape(2, 1, 1))
    x[:, 1] *= 0.8
    moved = climb(x, lambda x: torch.randn_like(x).sign(), eps=eps, size=0.3, steps=4, start=x + 9, bounds=bounds)
    assert ((moved - x).abs() <= eps + 1e-6).all()
    assert moved.min() >= 0
    assert moved[:, 1].max() <= 0.8
    assert not torch.equal(moved, x)


def test_a_gradient_that_is_no_number_pushes_nowhere() -> None:
    network = linear()
    with torch.no_grad():
        network.head.weight[0, 0] = torch.nan
    forward = forward_of(network)
    assert torch.equal(climb(forward.batch.x, uphill(forward, "side"), eps=0.1, size=0.1, steps=1), forward.batch.x)


def test_side_passes_replay_the_noise_and_move_nothing() -> None:
    forward = forward_of(noisy())
    clean = forward.outputs
    before = kept(forward.network)
    assert_close(outputs_at(forward, forward.batch.x, "side"), clean)
    assert all(torch.equal(t, before[name]) for name, t in kept(forward.network).items())


def test_training_passes_draw_anew_and_move_statistics() -> None:
    forward = forward_of(noisy())
    clean = forward.outputs
    before = forward.network.features[1].running_mean.clone()
    again = outputs_at(forward, forward.batch.x, "train")
    assert not torch.allclose(again, clean)
    assert not torch.equal(forward.network.features[1].running_mean, before)


def test_passes_at_rest_are_those_of_prediction() -> None:
    forward = forward_of(noisy())
    before = kept(forward.network)
    found = outputs_at(forward, forward.batch.x, "eval")
    assert forward.network.training
    assert all(torch.equal(t, before[name]) for name, t in kept(forward.network).items())
    assert torch.equal(found, forward.network.eval()(forward.batch.x))


def test_the_attack_collects_no_gradients() -> None:
    forward = forward_of(noisy())
    for mode in ("side", "train", "eval"):
        climb(forward.batch.x, uphill(forward, mode), eps=0.1, size=0.1, steps=2)
    assert all(p.grad is None for p in forward.network.parameters())
    assert not forward.batch.x.requires_grad
