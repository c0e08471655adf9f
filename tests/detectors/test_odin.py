"""ODIN against its formula on raw logits, and against finite differences."""

import pytest
import torch
from detectors.plain import float64, plain, rows
from echo import Echo, EchoGaussian
from linear import Linear, images
from torch.testing import assert_close

from levelhead.detectors._fit import Scorer
from levelhead.detectors.max_probability import MaxProbability
from levelhead.detectors.odin import ODIN
from levelhead.predictor import Ensemble
from levelhead.types import CannotCompose

X = float64(rows(25, 5)[0])


def by_hand(point, x, temperature, magnitude):
    x = x.clone().requires_grad_()
    logits = point.outputs(x)[0] / temperature
    torch.nn.functional.cross_entropy(logits, logits.argmax(-1), reduction="sum").backward()
    stepped = x.detach() - magnitude * x.grad.sign()
    return 1 - (point.outputs(stepped)[0] / temperature).softmax(-1).amax(-1).detach()


@pytest.mark.parametrize("temperature, magnitude", [(1000.0, 0.0014), (10.0, 0.05), (1.0, 0.2)])
def test_it_steps_towards_the_label(temperature, magnitude):
    point = plain()  # whose features have standard deviation 1 by its signature
    score = Scorer(point, ODIN(temperature=temperature, magnitude=magnitude))(X)
    assert_close(score, by_hand(point, X, temperature, magnitude), rtol=1e-6, atol=1e-9)


def test_without_step_and_temperature_it_is_the_maximum_probability():
    ensemble = Ensemble([plain(seed=0), plain(seed=1)])
    assert_close(Scorer(ensemble, ODIN(temperature=1.0, magnitude=0.0))(X), Scorer(ensemble, MaxProbability())(X))


def test_it_needs_no_network_and_works_without_gradients_around():
    x, _ = images()
    predictor = Linear(scale=3.0)
    with torch.no_grad():
        score = Scorer(predictor, ODIN(temperature=1.0, magnitude=0.01))(x)
    z = predictor.z(x)
    moved = z.abs() + 3 * 0.01 * predictor.weight.abs().sum()
    assert_close(score, torch.sigmoid(-moved).double().detach(), rtol=1e-5, atol=1e-7)
    assert all(p.grad is None for p in predictor.parameters())
    assert not score.requires_grad


def test_a_step_lowers_the_score():
    point = plain()
    assert (Scorer(point, ODIN(1.0, 0.05))(X) < Scorer(point, ODIN(1.0, 0.0))(X)).all()


def test_predictors_without_gradients_are_told_what_to_write():
    class Stepwise(Echo):
        differentiable = False

    with pytest.raises(CannotCompose, match=r"magnitude=0\.0"):
        Scorer(Stepwise(), ODIN())(torch.randn(3, 3))
    assert Scorer(Stepwise(), ODIN(magnitude=0.0))(torch.randn(3, 3)).shape == (3,)
    with pytest.raises(CannotCompose, match="KNN"):
        Scorer(EchoGaussian(), ODIN())(torch.randn(3, 2))


@pytest.mark.parametrize(
    "make, word", [(lambda: ODIN(temperature=0.0), "temperature"), (lambda: ODIN(magnitude=-1.0), "magnitude")]
)
def test_settings_that_mean_nothing_are_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()
