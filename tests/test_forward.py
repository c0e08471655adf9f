"""One clean pass a step, side passes on the same noise, and the order of terms."""

from typing import Any

import torch
from networks import Noisy, network
from torch import Tensor, nn
from torch.testing import assert_close

from levelhead.forward import Forward, Objective, Stateless, extend, gradient, network_loss
from levelhead.types import Batch, Scalar

X, Y = torch.rand(6, 4), torch.randint(3, (6,))
BATCH = Batch(X, Y, torch.arange(6))


class Counting(nn.Module):
    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return x


def test_outputs_are_computed_once() -> None:
    counting = Counting()
    forward = Forward(network(counting), BATCH)
    assert counting.passes == 0
    network_loss(forward)
    network_loss(forward.on(y=torch.zeros(6, dtype=torch.long)))
    assert counting.passes == 1
    network_loss(forward.on(x=X + 1))
    assert counting.passes == 2


def test_side_passes_see_the_noise_of_the_clean_pass() -> None:
    forward = Forward(network(Noisy()).train(), BATCH)
    clean = forward.outputs
    torch.randn(5)  # the stream goes on
    assert_close(forward.at(X), clean)


def test_a_side_pass_before_the_clean_one_shares_its_noise_too() -> None:
    forward = Forward(network(Noisy()).train(), BATCH)
    aside = forward.at(X)
    assert_close(forward.outputs, aside)


def test_side_passes_move_no_statistic_and_the_clean_one_does() -> None:
    made = network(nn.BatchNorm1d(5)).train()
    forward = Forward(made, BATCH)
    before = made.features[1].running_mean.clone()
    forward.at(X)
    assert_close(made.features[1].running_mean, before)
    assert forward.outputs.requires_grad
    assert not torch.allclose(made.features[1].running_mean, before)


def test_given_outputs_are_used() -> None:
    outputs = torch.randn(1, 6, 3)
    assert_close(network_loss(Forward(network(), BATCH).given(outputs)), nn.functional.cross_entropy(outputs[0], Y))


def test_tracked_has_gradients_to_x_and_keeps_an_outer_graph() -> None:
    forward = Forward(network(), BATCH).tracked()
    (slope,) = torch.autograd.grad(network_loss(forward), forward.batch.x)
    assert slope.abs().sum() > 0
    outer = X.clone().requires_grad_(True)
    moved = Forward(network(), BATCH._replace(x=outer * 2)).tracked()
    assert torch.autograd.grad(network_loss(moved), outer)[0].abs().sum() > 0


def test_the_first_term_is_outermost() -> None:
    order: list[str] = []

    class Named(Stateless):
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, inner: Objective, forward: Forward) -> Scalar:
            order.append(f"{self.name} in")
            value = inner(forward)
            order.append(f"{self.name} out")
            return value

    terms: list[Any] = [Named("a"), Named("b")]
    extend(network_loss, terms)(Forward(network(), BATCH))
    assert order == ["a in", "b in", "b out", "a out"]


def test_gradient_leaves_parameters_alone() -> None:
    made = network()
    slope = gradient(lambda x: made(x).sum(), X)
    assert slope.shape == X.shape
    assert all(p.grad is None for p in made.parameters())
