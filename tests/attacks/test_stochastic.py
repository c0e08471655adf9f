"""Predictors that draw: attacks meet fresh draws, from their own stream."""

import pytest
import torch
from attacks.bent import generator

from levelhead.attack_check import check_attack
from levelhead.attacks.pgd import PGD
from levelhead.attacks.square import Square
from levelhead.backbones.mlp import MLP
from levelhead.likelihood import Categorical, Signature
from levelhead.network import build
from levelhead.predictor import Point
from levelhead.surgeries.mc_dropout import MCDropout

SIGNATURE = Signature((1, 4, 4), 3, Categorical(3), (0.5,), (0.25,))


@pytest.fixture
def predictor():
    network = build(MLP(hidden=(32,)), (MCDropout(p=0.4, num_samples=2),), SIGNATURE)
    return Point(network).with_noise(None)


@pytest.fixture
def rows():
    return torch.rand(20, 1, 4, 4, generator=generator()), torch.arange(20) % 3


@pytest.mark.parametrize("attack", [PGD(steps=3), PGD(steps=3, draws=4), Square(queries=5, draws=2)], ids=repr)
def test_the_generator_decides_everything(attack, predictor, rows):
    stream = torch.get_rng_state()
    first, same = (attack(predictor, *rows, generator(3)) for _ in range(2))
    assert torch.equal(first, same)
    assert torch.equal(torch.get_rng_state(), stream)
    assert not torch.equal(first, attack(predictor, *rows, generator(4)))


def test_fresh_draws_in_every_call(predictor, rows):
    held = Point(predictor.network, noise=0)
    x, y = rows
    fresh = PGD(steps=6, random_start=False)(predictor, x, y, generator())
    assert not torch.equal(fresh, PGD(steps=6, random_start=False)(held, x, y, generator()))


def test_several_draws_agree_better_on_the_gradient(predictor, rows):
    x, y = rows

    def spread(draws):
        steps = [PGD(steps=1, random_start=False, draws=draws)(predictor, x, y, generator(s)) for s in range(6)]
        return float(torch.stack(steps).std(0).mean())

    assert spread(30) < 0.8 * spread(1)


def test_the_checklist_asks_for_draws(predictor, rows):
    found = {flag.name: flag for flag in check_attack(predictor, *rows, PGD(steps=2))}
    assert found["randomness"].raised
    assert "rises" not in found  # between two calls the loss moves by itself
    several = {flag.name: flag for flag in check_attack(predictor, *rows, PGD(steps=2, draws=3))}
    assert not several["randomness"].raised
