"""Attaching to a trained network: it stays as it was, the uncertainty is small at its rows and grows away from them."""

import copy

import pytest
import torch
from contracts.styles import attempt, fit, made, regression
from nomu.small import beside, plane
from torch.testing import assert_close

from levelhead.backbones.mlp import MLP
from levelhead.nomu.attached import AttachedUncertainty
from levelhead.nomu.desiderata import desiderata
from levelhead.nomu.loss import in_sample, out_of_sample
from levelhead.passes import seeded
from levelhead.posthoc.attach_nomu import AttachNomu
from levelhead.predictor import Ensemble, Point
from levelhead.recipe import Recipe
from levelhead.samplers.adamw import AdamW
from levelhead.storage import load, save

TASK = plane()
DOMAIN = 4 * torch.rand(300, 2, generator=torch.Generator().manual_seed(1)) - 2
STEP = AttachNomu(hidden=(32,), steps=150, lr=1e-2, num_points=64)


@pytest.fixture(scope="module")
def trained():
    recipe = Recipe(backbone=MLP((16,)), sampler=AdamW(epochs=60, batch_size=12, lr=1e-2, weight_decay=0.0))
    predictor = recipe.fit(TASK, 0, rehearsed=True)
    predictor.zero_grad(set_to_none=True)
    return predictor


@pytest.fixture(scope="module")
def attached(trained):
    with seeded(0):
        return STEP(trained, TASK.sealed())


def test_the_prediction_is_the_same_to_the_bit_and_the_predictor_untouched(trained):
    state, mode = copy.deepcopy(trained.state_dict()), [m.training for m in trained.modules()]
    before = trained(DOMAIN)
    after = STEP(trained, TASK.sealed())
    assert torch.equal(after(DOMAIN).mean, before.mean)
    assert all(torch.equal(t, state[key]) for key, t in trained.state_dict().items())
    assert [m.training for m in trained.modules()] == mode
    assert all(p.grad is None for p in trained.parameters())
    assert all(p.requires_grad for p in trained.network.parameters())


def test_uncertainty_is_small_at_the_rows_and_grows_away_from_them(attached):
    found = desiderata(attached, TASK.train.x, DOMAIN)
    assert found.smallest > 0
    assert found.in_sample < 0.5
    assert found.growth > 0.4


def test_noise_that_the_network_says_is_kept():
    task = regression()
    predictor = fit("mlp", task=task, epochs=2)
    before, after = predictor(task.test.x), AttachNomu(steps=3)(predictor, task.sealed())(task.test.x)
    assert_close(after.aleatoric(), before.aleatoric())
    assert torch.equal(after.mean, before.mean)
    assert (after.epistemic() > 0).all()


def test_it_minimises_the_two_terms(trained):
    def loss(predictor: AttachedUncertainty) -> float:
        x = TASK.train.x
        with torch.no_grad():
            here = predictor.side(x, trained.embed(x))
            away = predictor.side(DOMAIN, trained.embed(DOMAIN))
        pulled = 0.1 * in_sample(here, stable=True).sum()
        return float(pulled + 0.01 * out_of_sample(away, c_exp=30.0, stable=True).mean())

    values = []
    for steps in (1, 30, 150):
        with seeded(0):
            step = AttachNomu(hidden=(32,), steps=steps, lr=1e-2, num_points=64)
            values.append(loss(step(trained, TASK.sealed())))
    assert values[0] > values[1] > values[2]


def test_a_saved_one_comes_back_and_x_gets_a_gradient(attached, tmp_path):
    again = load(save(attached, tmp_path / "predictor"))
    assert torch.equal(again(DOMAIN).variance, attached(DOMAIN).variance)
    x = DOMAIN.clone().requires_grad_(True)
    attached(x).epistemic().sum().backward()
    assert x.grad is not None
    assert x.grad.any()


def test_other_predictors_are_refused_with_advice(trained):
    for other in (Ensemble([trained, trained]), Point(made("mlp")), Point(beside(TASK))):
        found, _ = attempt(lambda other=other: STEP(other, TASK.sealed()))
        assert found is None


@pytest.mark.parametrize("wrong", [{"hidden": ()}, {"steps": 0}, {"l2": -1.0}, {"lr": 0.0}, {"l_min": 5.0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AttachNomu(**wrong)
