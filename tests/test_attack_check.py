"""Predictors whose gradients lead nowhere, each in its own way, and those of which nothing is to be said."""

import pytest
import torch
from linear import Linear
from torch import nn

from levelhead.attack_check import CHECKS, check_attack
from levelhead.attacks.deep_fool import DeepFool
from levelhead.attacks.fgsm import FGSM
from levelhead.attacks.pgd import PGD
from levelhead.likelihood import Categorical, Signature
from levelhead.network import Network
from levelhead.predictive import CategoricalMixture
from levelhead.predictor import Point

ATTACK = PGD(eps=0.1, steps=10)


class Net(Linear):
    """A fixed small network of three classes on 8 x 8 images."""

    def __init__(self, scale=3.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3))
        self.gain = scale

    def logits(self, x):
        return self.gain * self.net(2 * x - 1)

    def forward(self, x):
        return CategoricalMixture(self.logits(x)[None])


class Rounded(Net):
    """Ten levels of grey."""

    def logits(self, x):
        return super().logits((9 * x).round() / 9)


class StraightThrough(Net):
    """Ten levels of grey with the gradient of none."""

    def logits(self, x):
        return super().logits(x + ((9 * x).round() / 9 - x).detach())


class Reversed(Net):
    """The value is right and the gradient points the other way."""

    def logits(self, x):
        z = super().logits(x)
        return 2 * z.detach() - z


class Jittery(Net):
    """Noise on the inputs in every call."""

    def logits(self, x):
        return super().logits(x + 0.1 * torch.randn_like(x))


class Purifying(Net):
    """It moves x to where it is surer, before it answers."""

    def logits(self, x):
        with torch.enable_grad():
            point = x.detach().requires_grad_(True)
            surer = super().logits(point).logsumexp(-1).sum()
            (slope,) = torch.autograd.grad(surer, point)
        return super().logits(x + 0.01 * slope)


class Mending(FGSM):
    """Moves wrong rows to where they are right."""

    def on(self, victim):
        return (2 * victim.x - super().on(victim)).clamp(0, 1)


def rows(predictor, n=48):
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, Net()(x).label


def flags(predictor, attack=ATTACK, **how):
    return {flag.name: flag for flag in check_attack(predictor, *rows(predictor), attack, **how)}


def raised(predictor, attack=ATTACK, **how):
    return {name for name, flag in flags(predictor, attack, **how).items() if flag.raised}


def test_an_honest_predictor_raises_nothing_and_meets_every_check():
    found = flags(Net(), PGD(eps=0.1, steps=40, loss="margin"))
    assert not [flag for flag in found.values() if flag.raised]
    assert set(found) == set(CHECKS) - {"transfer", "probabilities"}


def test_rounded_inputs_look_robust_and_are_flagged():
    found = flags(Rounded())
    assert found["gradients"].value == 1.0
    assert {"gradients", "unbounded", "black_box"} <= {name for name, flag in found.items() if flag.raised}


def test_saturated_logits_hide_the_gradient_of_cross_entropy_and_not_of_the_ratio():
    assert "gradients" in raised(Net(scale=1e4))
    assert "gradients" not in raised(Net(scale=1e4), PGD(eps=0.1, steps=10, loss="dlr"))


def test_a_gradient_that_is_not_the_predictors_is_found():
    assert "rises" in raised(StraightThrough())
    assert {"rises", "black_box"} <= raised(Reversed())


def test_noise_wants_several_draws():
    assert "randomness" in raised(Jittery())
    assert "randomness" not in raised(Jittery(), PGD(eps=0.1, steps=3, draws=3))


def test_gradients_inside_are_found():
    assert "gradients_inside" in raised(Purifying())


def test_probabilities_as_logits_are_found():
    likelihood = Categorical(3)
    signature = Signature((1, 8, 8), 3, likelihood, (0.5,), (0.25,))
    for squash, wanted in ((nn.Softmax(-1), True), (nn.Identity(), False)):
        network = Network(nn.Flatten(), nn.Sequential(nn.Linear(64, 3), squash), signature)
        assert ("probabilities" in raised(Point(network))) == wanted


def test_an_undefended_surrogate_breaks_a_masked_predictor():
    assert "transfer" in raised(Rounded(), surrogate=Net())
    assert "transfer" not in raised(Net(), surrogate=Net())


def test_a_weak_attack_is_found_by_stronger_ones():
    weak = PGD(eps=0.1, steps=3, step_size=0.005, random_start=False)
    assert {"more_steps", "single_step"} <= raised(Net(), weak)


def test_an_attack_that_mends_rows_is_no_worst_case():
    assert not flags(Net(), FGSM(eps=0.1))["worst_case"].raised
    x, y = rows(Net())
    wrong = (y + 1) % 3  # every row is wrong before
    assert {flag.name: flag.raised for flag in check_attack(Net(), x, wrong, Mending(eps=0.5))}["worst_case"]


def test_attacks_without_a_radius_meet_the_checks_of_the_predictor():
    assert set(flags(Net(), DeepFool())) == {"gradients", "randomness", "rises", "gradients_inside", "worst_case"}


def test_the_predictor_is_left_alone():
    predictor = Net().train()
    stream = torch.get_rng_state()
    check_attack(predictor, *rows(predictor), ATTACK)
    assert torch.equal(torch.get_rng_state(), stream)
    assert predictor.training
    assert all(parameter.grad is None for parameter in predictor.parameters())


@pytest.mark.parametrize("name", list(CHECKS))
def test_every_check_says_what_it_means(name):
    assert len(CHECKS[name]) > 20
